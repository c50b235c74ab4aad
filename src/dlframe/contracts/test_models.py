"""What every model promises."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlframe.contracts.building import Trial, difference, equal, models_for, step_loss
from dlframe.contracts.building import build as build_entry
from dlframe.contracts.samples import suitable
from dlframe.contracts.selection import contract
from dlframe.registry import GROUPS
from dlframe.storage import checkpoint
from dlframe.types import Ragged


@contract("model")
def test_shape(entry):
    """A batch goes through; so does, to the same values, a single sample, and a batch in channels-last memory."""
    for data in suitable(entry):
        trial = Trial(entry, data)
        if trial.task:  # what the task makes of the outputs; its own contracts try single samples
            for name, score in trial.answers().items():
                values = score.values if isinstance(score, Ragged) else score
                assert not values.is_floating_point() or values.isfinite().all(), f"score '{name}' is not finite"
            continue
        inputs, model = trial.inputs, trial.model
        width = len(data.spec.classes) or data.spec.horizon
        output = model(inputs)
        expected = (len(inputs), width)
        assert output.shape == expected, f"the output must have shape {expected}. Received: {tuple(output.shape)}"
        assert output.dtype == torch.float32, f"the output must be float32. Received: {output.dtype}"
        model.eval()
        with torch.no_grad():
            together, alone = model(inputs), model(inputs[:1])
            assert together.isfinite().all(), "the output is not finite"
            different = difference(together[:1], alone, rtol=1e-3, atol=1e-4)
            assert not different, f"a sample alone is answered otherwise than in a batch: {different}"
            if inputs.ndim == 4:
                turned = model.to(memory_format=torch.channels_last)(inputs.to(memory_format=torch.channels_last))
                different = difference(together, turned, rtol=1e-3, atol=1e-4)
                assert not different, f"channels-last memory changes the answer: {different}"


@contract("model")
def test_sized(entry):
    """A model that states its size has an option for it, which it returns where it is given."""
    if entry.facts["sized"]:
        assert "image_size" in entry.parameters, "it states sized=True and has no option image_size"
        options = {name: p.default for name, p in entry.parameters.items()}
        sizes = [GROUPS["model"].factory(entry.name).input_size(**{**options, "image_size": size}) for size in (None, 48)]
        assert isinstance(sizes[0], int), f"input_size must return an integer. Received: {sizes[0]!r}"
        assert sizes[1] == 48, f"input_size must return the option image_size, 48. Received: {sizes[1]!r}"


@contract("model")
def test_subwords(entry):
    """A model that states its sub-words says from where they are, and how many it reads."""
    if entry.facts["subwords"]:
        read = GROUPS["model"].factory(entry.name).reads(**{name: p.default for name, p in entry.parameters.items()})
        kinds = [type(value) for value in read]
        assert kinds == [str, int], f"reads(**options) must return a source and a number of tokens. Received: {read!r}"


def unmoved(before: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """The trained parameters that are what they were."""
    return [name for name, p in network.named_parameters() if p.requires_grad and torch.equal(p, before[name])]


@contract("model")
def test_gradients(entry):
    """Three steps move every parameter that is to be trained, of every network."""
    data = suitable(entry)[0]
    trial = Trial(entry, data)
    first = trial.network(trial.networks[0]) if trial.networks else trial.model
    before = copy.deepcopy(dict(first.named_parameters()))
    trial.train(3)
    still = unmoved(before, first)
    assert not still, f"no gradient reaches {', '.join(still)}: use it in `forward`, or set requires_grad=False"
    for name in trial.networks[1:]:
        known = sorted(GROUPS["task"], key=lambda task: task.facts["trained_on"] != "all")  # the usual ones first
        task = next(task for task in known if entry in models_for(task, data))
        whole = build_entry(task, spec=data.spec, model=trial.model.train())
        optimizer = torch.optim.Adam(whole.network(name).parameters(), 2e-3)
        before = copy.deepcopy(dict(whole.network(name).named_parameters()))
        for _ in range(3):
            optimizer.zero_grad()
            step_loss(whole, [trial.batch], name).backward()
            optimizer.step()
        still = unmoved(before, whole.network(name))
        assert not still, f"no gradient of the {name} reaches {', '.join(still)}"


@contract("model")
def test_overfits(entry):
    """One batch is learned by heart: cross-entropy, or mean squared error in units of the variance, below 0.1.

    In a task of its own, the loss falls to a tenth.
    """
    data = suitable(entry)[0]
    trial = Trial(entry, data)
    enough = 0.1 * abs(trial.loss().item()) if trial.task else 0.1
    losses = trial.train(300, enough=enough)
    fell = f"{losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps"
    assert losses[-1] < enough, (
        f"{len(trial.batch)} samples are not learned by heart: the loss fell {fell}, not below {enough:.3g}"
    )


@contract("model")
def test_deterministic(entry):
    """The same seed gives the same weights and the same three steps, to the bit."""
    data = suitable(entry)[0]
    runs = []
    for _ in range(2):
        trial = Trial(entry, data)
        runs.append((trial.train(3), trial.model.state_dict()))
    assert equal(*runs), "two trainings with one seed differ: draw all random numbers from torch's generator"


@contract("model")
def test_saves(entry, tmp_path):
    """The state goes through a checkpoint into a model of another seed, which then answers the same."""
    data = suitable(entry)[0]
    trial, other = Trial(entry, data, 0), Trial(entry, data, 1)
    trial.train(2)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, trial.model.state_dict(), {})
    checkpoint.restore(other.model, checkpoint.weights(path), path)
    assert equal(trial.model.state_dict(), other.model.state_dict()), "what is restored is not what was saved"
    assert equal(trial.answers(), other.answers()), "a restored model answers otherwise: put what it learns into its state"


@contract("model")
def test_groups(entry):
    """A model's own parameter groups hold each parameter that any epoch trains, once."""
    model: Any = Trial(entry, suitable(entry)[0]).model
    if not hasattr(model, "parameter_groups"):
        return
    groups = model.parameter_groups()
    assert all(group.get("lr_scale", 1.0) > 0 for group in groups), "the lr_scale of a group must be above 0"
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held)), "a parameter is in two groups"
    for epoch in range(4):
        if hasattr(model, "start_epoch"):
            model.start_epoch(epoch, 4)
        trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        assert trained <= set(held), f"a parameter that epoch {epoch} trains is in no group"
