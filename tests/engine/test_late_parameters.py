"""Parameters that are not there yet when a model is built, or no longer when it is trained."""

from __future__ import annotations

import pytest
import torch

from dlframe.config import load
from dlframe.engine import fit
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import load_data, run
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.types import TrainingError

pytestmark = pytest.mark.usefixtures("no_figures")

PLUGIN = '''
import torch
from torch import nn
from dlframe.registry import models


@models.register("late", inputs=("image",))
class Late(nn.Module):
    """The head is made in the first forward pass, and replaced or unfrozen later if asked.

    Args:
        replaced: Forward pass that replaces the head; 0 for none.
        frozen: Epochs in which the body does not learn.
    """

    def __init__(self, spec, *, replaced: int = 0, frozen: int = 0) -> None:
        super().__init__()
        self.body, self.head, self.passes = nn.Linear(64, 8), None, 0
        self.classes, self.replaced, self.frozen = len(spec.classes), replaced, frozen
        self.body.requires_grad_(not frozen)

    def parameter_groups(self):
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr_scale": 1.0}]

    def start_epoch(self, epoch, epochs):
        self.body.requires_grad_(epoch >= self.frozen)

    def forward(self, images):
        self.passes += 1
        features = self.body(images.flatten(1))
        if self.head is None or self.passes == self.replaced:
            self.head = nn.Linear(features.shape[1], self.classes)
        return self.head(features)


@models.register("lazy", inputs=("image",))
class Lazy(nn.Sequential):
    """Sizes are found from the first batch; the norm counts its batches."""

    def __init__(self, spec) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(len(spec.classes)))


@models.register("eager", inputs=("image",))
class Eager(nn.Sequential):
    """The same, of known sizes."""

    def __init__(self, spec) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, len(spec.classes)))
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("plugin") / "own.py"
    file.write_text(PLUGIN)
    return f"plugin_paths={file}"


def train(folder, plugin: str, *overrides: str):
    return run(load([plugin, "epochs=2", "tracking=none", f"runs={folder}", *overrides]))


@pytest.mark.parametrize(("model", "count"), [("late", 4), ("lazy", 6)])
def test_late_parameters_are_trained_kept_and_scored(tmp_path, plugin, model, count):
    result = train(tmp_path, plugin, f"model={model}")
    tree = checkpoint.load(states(result.folder)[0])[0]
    assert len(tree["optimizers"][0]["state"]) == count
    assert evaluate_run(result.folder, plugin_paths=(plugin.partition("=")[2],)).metrics == result.metrics


def test_nothing_but_the_parameters_remains_of_the_first_pass(plugin):
    config = load([plugin, "model=eager"])
    dataset = load_data(config)
    task = fit.build_task(config, dataset)
    assert task.model[2].num_batches_tracked == 0
    assert task.model[2].running_mean.count_nonzero() == 0
    first = torch.rand(1)
    torch.manual_seed(config.run.seed)
    config.build_model(dataset.spec)
    assert torch.equal(torch.rand(1), first)


def test_a_replaced_layer_is_refused(tmp_path, plugin):
    message = r"^model: no optimizer has model\.head\.weight, model\.head\.bias \(step 1\): make, replace and unfreeze"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, plugin, "model=late", "model.replaced=2")


def test_a_layer_that_is_unfrozen_without_an_optimizer_is_refused(tmp_path, plugin):
    message = r"^model: no optimizer has model\.body\.weight, model\.body\.bias \(step 18\)"
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, plugin, "model=late", "model.frozen=1")
