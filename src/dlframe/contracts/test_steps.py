"""What every optimizer and every schedule promises."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.contracts.building import build, equal, groups_of, optimize, small_model
from dlframe.contracts.selection import contract
from dlframe.registry import Entry


@contract("optimizer")
def test_lowers_the_loss(entry):
    """30 steps with the default options."""
    model = small_model()
    losses = optimize(model, build(entry, params=groups_of(model)), 30)
    assert all(map(math.isfinite, losses)), "the loss is not finite"
    assert losses[-1] < losses[0], f"30 steps do not lower the loss: {losses[0]:.4f} -> {losses[-1]:.4f}"


@contract("optimizer")
def test_resumes(entry):
    """An optimizer that takes over another's state goes on as the other would have, to the bit."""
    model = small_model()
    optimizer = build(entry, params=groups_of(model))
    optimize(model, optimizer, 3)
    other = small_model()
    other.load_state_dict(model.state_dict())
    heir = build(entry, params=groups_of(other))
    heir.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    same = optimize(model, optimizer, 3) == optimize(other, heir, 3) and equal(model.state_dict(), other.state_dict())
    assert same, (
        "restored from its state_dict, it goes on otherwise: keep all that steps depend on in self.state or param_groups"
    )


def scheduled(entry: Entry, steps: int):
    """An optimizer under a schedule, and its learning rates before each of `steps` steps and after the last."""
    optimizer = torch.optim.SGD(groups_of(small_model()), lr=0.1)
    scheduler = build(entry, optimizer=optimizer, steps=steps)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for step in range(steps):
        optimizer.step()
        scheduler.step(*[float(step)] if isinstance(scheduler, ReduceLROnPlateau) else [])
        rates.append([group["lr"] for group in optimizer.param_groups])
    return scheduler, rates


@contract("scheduler")
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_learning_rate(entry, steps):
    """The rate is finite, not negative, nowhere above the optimizer's own, and above 0 somewhere."""
    _, rates = scheduled(entry, steps)
    for rate in itertools.chain(*rates):
        within = math.isfinite(rate) and 0 <= rate <= 0.1 + 1e-9
        assert within, f"with lr=0.1, the rate must stay from 0 to 0.1. Received: {rate}"
    assert max(itertools.chain(*rates[:-1])) > 0, "no step has a rate above 0"


@contract("scheduler")
def test_schedule_resumes(entry):
    """A schedule that takes over another's state has the same."""
    whole, _ = scheduled(entry, 20)
    heir, _ = scheduled(entry, 0)
    heir.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert equal(heir.state_dict(), whole.state_dict()), "restored from its state_dict, it has another state"
