"""The schedules' curves, at their ends and for the shortest runs."""

import json
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dlframe.registry import schedulers
from dlframe.registry.plugins import discover

discover()
NAMES = [entry.name for entry in schedulers if entry.origin == "dlframe"]


def make_optimizer(kind=torch.optim.SGD, **options) -> torch.optim.Optimizer:
    params = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in (0.1, 0.01)]
    return kind(params, **options)


def rates(name: str, steps: int, value: float = 1.0, **options) -> list[list[float]]:
    """The learning rates of both groups at each step."""
    optimizer = make_optimizer()
    scheduler = schedulers.build({"name": name, **options}, optimizer=optimizer, steps=steps)
    curve = []
    for _ in range(steps):
        curve.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step(value) if isinstance(scheduler, ReduceLROnPlateau) else scheduler.step()
    return curve


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 100])
def test_every_step_of_every_group_has_a_rate(name, steps):
    for large, small in rates(name, steps):
        assert 0 < large <= 0.1 + 1e-12
        assert small == pytest.approx(large / 10, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_continues_from_its_saved_state(name):
    curve = [row[0] for row in rates(name, 20)]
    optimizer = make_optimizer()
    scheduler = schedulers.build({"name": name}, optimizer=optimizer, steps=20)
    step = (lambda s: s.step(1.0)) if isinstance(scheduler, ReduceLROnPlateau) else lambda s: s.step()
    for _ in range(8):
        optimizer.step()
        step(scheduler)
    state, moved = json.loads(json.dumps(scheduler.state_dict())), optimizer.state_dict()
    optimizer = make_optimizer()
    scheduler = schedulers.build({"name": name}, optimizer=optimizer, steps=20)
    optimizer.load_state_dict(moved)
    scheduler.load_state_dict(state)
    rest = []
    for _ in range(12):
        rest.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step(scheduler)
    assert rest == curve[8:]


def test_constant_is_constant():
    assert rates("constant", 5) == [[0.1, 0.01]] * 5


def test_warmup_rises_linearly_to_the_rate_and_the_cosine_falls_to_the_floor():
    curve = [row[0] for row in rates("warmup_cosine", 100, warmup_ratio=0.1, min_lr_ratio=0.2)]
    assert curve[:11] == pytest.approx([0.1 * (step + 1) / 11 for step in range(11)])
    assert curve[10] == max(curve)
    assert curve[55] == pytest.approx(0.1 * (0.2 + 0.8 * 0.5))
    assert curve[-1] == pytest.approx(0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi * 89 / 90)) / 2))


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_warmup_may_be_nothing_or_everything(warmup):
    curve = [row[0] for row in rates("warmup_cosine", 10, warmup_ratio=warmup)]
    assert curve == sorted(curve, reverse=warmup == 0)


@pytest.mark.parametrize("anneal_strategy", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("steps", [3, 4, 10, 1000])
def test_one_cycle_peaks_at_the_rate(anneal_strategy, pct_start, steps):
    curve = [row[0] for row in rates("one_cycle", steps, anneal_strategy=anneal_strategy, pct_start=pct_start)]
    assert max(curve) == pytest.approx(0.1)
    assert curve.index(max(curve)) + 1 == min(max(2, round(pct_start * steps)), steps - 1)
    assert curve[0] == pytest.approx(0.1 / 25)
    assert curve[-1] == pytest.approx(0.1 / 25 / 10000)


def test_one_cycle_moves_the_momentum_where_there_is_one():
    for kind, options, key in ((torch.optim.SGD, {"momentum": 0.9}, "momentum"), (torch.optim.AdamW, {}, "betas")):
        optimizer = make_optimizer(kind, **options)
        scheduler = schedulers.build({"name": "one_cycle", "cycle_momentum": True}, optimizer=optimizer, steps=10)
        seen = []
        for _ in range(10):
            value = optimizer.param_groups[0][key]
            seen.append(value if key == "momentum" else value[0])
            optimizer.step()
            scheduler.step()
        assert (seen[0], min(seen), seen[-1]) == pytest.approx((0.95, 0.85, 0.95))


@pytest.mark.parametrize(("kind", "options"), [(torch.optim.SGD, {"momentum": 0.0}), (torch.optim.Adagrad, {})])
def test_one_cycle_leaves_an_optimizer_without_momentum_alone(kind, options):
    optimizer = make_optimizer(kind, **options)
    schedulers.build({"name": "one_cycle", "cycle_momentum": True}, optimizer=optimizer, steps=10)
    assert optimizer.param_groups[0].get("momentum", 0) == 0


def test_step_drops_at_its_milestones():
    curve = [row[0] for row in rates("step", 10, milestones=[0.3, 0.5], gamma=0.5)]
    assert curve == pytest.approx([0.1] * 3 + [0.05] * 2 + [0.025] * 5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_plateau_drops_after_its_patience_for_values_of_either_sign(sign):
    optimizer = make_optimizer()
    scheduler = schedulers.build(
        {"name": "plateau", "patience": 1, "factor": 0.5, "min_delta": 0.01}, optimizer=optimizer, steps=100
    )
    curve = []
    for value in (0.50, 0.48, 0.475, 0.474, 0.40, 0.40, 0.40):
        scheduler.step(value if sign > 0 else value - 1)
        curve.append(optimizer.param_groups[0]["lr"])
    assert curve == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]
