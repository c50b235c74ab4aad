"""What is particular to Prodigy. What every optimizer promises is tested by dlframe.contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from dlframe.cli import main
from dlframe.registry import optimizers, plugins

FOLDER = Path(__file__).parent
plugins.discover([str(FOLDER)])


def build(*groups: dict, **options: float) -> Any:
    return optimizers.build({"name": "prodigy", **options}, params=list(groups))


def logistic_regression(steps: int = 100, **options: float) -> float:
    """The distance that is found on digits."""
    inputs, targets = (torch.tensor(array) for array in load_digits(return_X_y=True))
    inputs = inputs.float() / 16
    weight = torch.zeros(64, 10, requires_grad=True)
    optimizer = build({"params": [weight]}, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(inputs @ weight, targets).backward()
        optimizer.step()
    return optimizer.distance.item()


def test_the_distance_found_does_not_depend_on_the_first_guess():
    assert logistic_regression(initial_distance=1e-8) == pytest.approx(logistic_regression(), rel=0.5)


def test_the_distance_is_never_overestimated_where_the_loss_is_convex():
    target = torch.tensor([3.0, -1.0, 0.5])
    x = torch.zeros(3, requires_grad=True)
    optimizer = build({"params": [x]}, weight_decay=0.0)
    distances = []
    for _ in range(1000):
        optimizer.zero_grad()
        (x - target).abs().sum().backward()
        optimizer.step()
        distances.append(optimizer.distance.item())
    assert distances == sorted(distances)
    assert 0.3 < distances[-1] <= 3.0


def test_a_group_with_a_smaller_rate_takes_smaller_steps():
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = build({"params": [a], "lr": 1.0}, {"params": [b], "lr": 0.25}, initial_distance=0.1, weight_decay=0.0)
    (a.sum() + b.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(1 - b, (1 - a) / 4)


def test_without_a_gradient_nothing_moves():
    moved, frozen = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = build({"params": [frozen, moved]}, weight_decay=0.0)
    moved.grad = torch.zeros(2)
    optimizer.step()
    assert moved.tolist() == frozen.tolist() == [1.0, 1.0]
    assert optimizer.distance.item() == pytest.approx(1e-6)


def test_listed_trained_and_scored_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(FOLDER.parent.parent)
    assert main(["list", "optimizer"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["prodigy"])
    assert line.split()[-1] == "prodigy"
    assert main(["model=mlp", "optimizer=prodigy", "epochs=10", "tracking=none", f"runs={tmp_path}"]) == 0
    (run,) = tmp_path.iterdir()
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["accuracy"]
    assert accuracy > 0.95
    capsys.readouterr()
    assert main(["test", str(run)]) == 0
    assert f"test accuracy {100 * accuracy:.2f} %" in capsys.readouterr().out
