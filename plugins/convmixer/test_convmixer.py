"""What is particular to ConvMixer. What every model promises is tested by dlframe.contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dlframe.cli import main
from dlframe.registry import models, plugins
from dlframe.types import ConfigError, DataSpec, Field

FOLDER = Path(__file__).parent
plugins.discover([str(FOLDER)])
CIFAR10 = DataSpec(
    "cifar10",
    {"image": Field(kind="image", dtype="uint8", shape=(3, 32, 32))},
    {"label": Field(kind="class", dtype="int64", names=tuple("0123456789"))},
)


def build(**options: int) -> Any:
    return models.build({"name": "convmixer", **options}, spec=CIFAR10)


def test_has_the_weights_of_the_papers_plan():
    """ConvMixer-256/8, in the paper's notation of width and depth: weights, biases and norms counted by hand."""
    stem, norm, head = 3 * 4 * 256 + 256, 2 * 256, 256 * 10 + 10
    block = (25 * 256 + 256 + norm) + (256 * 256 + 256 + norm)
    parameters = build(width=256, depth=8, kernel_size=5, patch_size=2).parameters()
    assert sum(p.numel() for p in parameters) == stem + norm + 8 * block + head


@pytest.mark.parametrize(("patch", "grid"), [(1, (32, 32)), (2, (16, 16)), (5, (6, 6))])
def test_the_grid_of_patches_keeps_its_size(patch, grid):
    assert build(patch_size=patch, kernel_size=9, width=8, depth=2).features(torch.zeros(2, 3, 32, 32)).shape == (2, 8, *grid)


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(ConfigError) as error:
        build(patch_size=33)
    assert str(error.value) == "model.patch_size: must fit into the image, 32 x 32. Received: 33."


def test_listed_trained_and_scored_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(FOLDER.parent.parent)
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["list", "model"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["convmixer"])
    assert line.split()[-1] == "convmixer"
    assert main(["model=convmixer", "optimizer.lr=0.01", "epochs=2", "tracking=none", f"runs={tmp_path}"]) == 0
    (run,) = tmp_path.iterdir()
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["accuracy"]
    assert accuracy > 0.5
    capsys.readouterr()
    assert main(["test", str(run)]) == 0
    assert f"test accuracy {100 * accuracy:.2f} %" in capsys.readouterr().out
