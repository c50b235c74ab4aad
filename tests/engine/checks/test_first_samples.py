"""Models of plugins on their first two samples: what is wrong is told in one line, before anything is trained."""

from __future__ import annotations

import pytest

from dlframe.config import load
from dlframe.engine import fit
from dlframe.jobs.train import load_data
from dlframe.types import RegistrationError

PLUGIN = '''
from collections import OrderedDict
import torch
from lightning.pytorch import LightningModule
from torch import nn
from dlframe.registry import models


class Base(nn.Module):
    def __init__(self, spec) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def logits(self, images):
        return self.head(images.flatten(1))


@models.register("wide")
class Wide(Base):
    """Eleven classes."""

    def forward(self, images):
        return torch.cat([self.logits(images), self.logits(images)[:, :1]], 1)


@models.register("pair")
class Pair(Base):
    """Logits and something else."""

    def forward(self, images):
        return self.logits(images), 0


@models.register("output")
class Output(Base):
    """Logits by name."""

    def forward(self, images):
        return OrderedDict(logits=self.logits(images))


@models.register("indices")
class Indices(Base):
    """Integers."""

    def forward(self, images):
        return self.logits(images).long()


@models.register("nothing")
class Nothing(Base):
    """No return."""

    def forward(self, images):
        self.logits(images)


@models.register("viewed")
class Viewed(nn.Module):
    """A view that takes channels to be first in memory."""

    def __init__(self, spec) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, images):
        images = self.body(images)
        return self.head(images.view(images.size(0), -1))  # the line


@models.register("narrow")
class Narrow(Base):
    """A layer for other images."""

    def forward(self, images):
        return self.head(images.flatten(1)[:, 1:])  # the line


@models.register("absent")
class Absent(nn.Module):
    """A value that the data do not have."""

    def __init__(self, spec) -> None:
        super().__init__()
        self.head = nn.Linear(64, spec.nothing)  # the line


@models.register("trained")
class Trained(LightningModule):
    """A training of its own."""

    def __init__(self, spec) -> None:
        super().__init__()

    def training_step(self, batch, index): ...


@models.register("short", inputs=("series",), targets=("value",), task="forecasting")
class Short(nn.Module):
    """One value for all steps, which would be taken for each."""

    def __init__(self, spec) -> None:
        super().__init__()
        self.head = nn.Linear(spec.shape[0], 1)

    def forward(self, windows):
        return self.head(windows[:, :, 0])


@models.register("plain")
class Plain(LightningModule):
    """A LightningModule that is a network and nothing else."""

    def __init__(self, spec) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images):
        return self.head(images.flatten(1))
'''

SHAPE = "must return a tensor of shape (2, 10)"
FAILS = "fails on two samples of digits (image (2, 1, 8, 8)): {line}: RuntimeError: "


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "own.py"
    file.write_text(PLUGIN)
    return file


def build(file, model: str, *options: str):
    config = load([f"plugin_paths={file}", f"model={model}", *options])
    return fit.build_task(config, load_data(config))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("wide", f"{SHAPE}. Received: shape (2, 11)."),
        ("pair", f"{SHAPE}. Received: tuple of tensor (2, 10), int; return one of them."),
        ("output", f"{SHAPE}. Received: OrderedDict of logits: tensor (2, 10); return one of them."),
        ("indices", f"{SHAPE}, of floats. Received: torch.int64."),
        ("nothing", f"{SHAPE}. Received: NoneType."),
        ("viewed", FAILS + "view size is not compatible"),
        ("narrow", FAILS + "mat1 and mat2 shapes cannot be multiplied (2x63 and 64x10)."),
        (
            "trained",
            "is a LightningModule, whose training_step would not be used. Register the network alone, an nn.Module; the loss "
            "is that of the task, and optimizer=NAME chooses the optimizer.",
        ),
    ],
)
def test_a_model_that_does_not_fit_its_task_is_refused(file, model, message):
    with pytest.raises(RegistrationError) as error:
        build(file, model)
    lines = PLUGIN.splitlines()
    start = next(i for i, line in enumerate(lines, 1) if line.startswith(f"class {model.capitalize()}("))
    marked = next((i for i, line in enumerate(lines, 1) if i > start and line.endswith("# the line")), 0)
    said = str(error.value)
    assert said.startswith(f"model '{model}' ({file}:{start}) {message.replace('{line}', f'{file}:{marked}')}")
    assert said.endswith("Try x.flatten(1), or trainer.channels_last=false.") == (model == "viewed")


@pytest.mark.parametrize(("output", "values"), [("point", 5), ("quantile", 15), ("gaussian", 10)])
def test_a_forecast_of_too_few_values_is_refused(output, values, file):
    levels = ["task.levels=[0.1,0.5,0.9]"] if output == "quantile" else []
    options = ["task=forecasting", "data=co2", "data.horizon=5", f"task.output={output}", *levels]
    with pytest.raises(
        RegistrationError, match=rf"must return a tensor of shape \(2, {values}\)\. Received: shape \(2, 1\)\.$"
    ):
        build(file, "short", *options)


def test_a_constructor_that_fails_is_told_with_its_line(file):
    line = next(i for i, text in enumerate(PLUGIN.splitlines(), 1) if "spec.nothing" in text)
    with pytest.raises(RegistrationError) as error:
        build(file, "absent")
    assert str(error.value) == (
        f"model=absent cannot be built: {file}:{line}: AttributeError: 'DataSpec' object has no attribute 'nothing'"
    )


def test_a_network_may_be_a_lightning_module(file):
    assert sum(p.numel() for p in build(file, "plain").model.parameters()) == 650
