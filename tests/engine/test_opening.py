"""What the opening of a run says of its model: parameters, steps, learning rates by layer; when it is compiled."""

from __future__ import annotations

import pytest

from dlframe.config import load
from dlframe.engine.fit import build_task, size_of
from dlframe.jobs.data import load_data
from dlframe.types import ConfigError

BACKBONE = ("model=backbone", "model.architecture=test_resnet", "model.image_size=32")


def opening(*options: str) -> str:
    config = load(options)
    return size_of(build_task(config, load_data(config)), config.networks, 1000, 50)


def test_the_opening_counts_parameters():
    config = load(["model=mlp"])
    task = build_task(config, load_data(config))
    parameters = sum(p.numel() for p in task.model.parameters())
    assert opening("model=mlp") == f"{parameters:,} parameters; 1,000 steps, 50 in an epoch"


def test_the_opening_says_what_is_frozen():
    # the head: 96 features and a bias for each of 10 classes
    assert ", 970 of them trained by gradients; " in opening(*BACKBONE, "model.trainable=head")


def test_the_opening_says_learning_rates_by_layer():
    config = load(BACKBONE)
    task = build_task(config, load_data(config))
    groups = len(task.network("model").layers)
    told = opening(*BACKBONE, "model.layer_decay=0.5")
    assert told.endswith(f"50 in an epoch; optimizer.lr times {0.5 ** (groups - 1):.2g} to 1 in {groups} groups")
    assert opening(*BACKBONE).endswith("50 in an epoch")


@pytest.mark.parametrize(("option", "cpu", "gpu"), [("auto", False, True), ("true", True, True), ("false", False, False)])
def test_auto_compiles_on_gpus_only(option, cpu, gpu):
    config = load(["model=mlp", f"compile={option}"])
    assert config.compiles is cpu
    assert config.changed(trainer={"accelerator": "gpu"}).compiles is gpu


def test_compile_is_a_choice_of_three():
    with pytest.raises(ConfigError, match=r"^compile: "):
        load(["model=mlp", "compile=sometimes"])
