"""Optimizers that score averages of the weights which they train, by `train()` and `eval()`: schedule-free ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.jobs.verify_resume import Comparison, compare
from dlframe.runs.recorder import BEST, states
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, RunPruned

pytestmark = pytest.mark.usefixtures("no_figures")

PLUGIN = '''
import torch
from dlframe.registry import Positive, optimizers


@optimizers.register("schedule_free")
class ScheduleFree(torch.optim.Optimizer):
    """SGD whose steps are taken at y, between z, which is stepped, and x, the mean of all z (Defazio et al. 2024).

    Args:
        lr: Learning rate.
        beta: How far y is from z.
    """

    def __init__(self, params, *, lr: Positive = 1.0, beta: Positive = 0.9) -> None:
        super().__init__(params, dict(lr=lr, beta=beta, weight_decay=0.0, trained=False, steps=0))

    @torch.no_grad()
    def train(self):
        for group in self.param_groups:
            for p in group["params"] if not group["trained"] else ():
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], 1 - group["beta"])
            group["trained"] = True

    @torch.no_grad()
    def eval(self):
        for group in self.param_groups:
            for p in group["params"] if group["trained"] else ():
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], 1 - 1 / group["beta"])
            group["trained"] = False

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            if not group["trained"]:
                raise RuntimeError("not in train mode")
            group["steps"] += 1
            share = 1 / group["steps"]
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                p.lerp_(z, share).add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - share) - 1))
                z.sub_(p.grad, alpha=group["lr"])
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plugin") / "own.py"
    file.write_text(PLUGIN)
    return str(file)


@pytest.fixture
def options(plugin: str, tmp_path: Path) -> list[str]:
    return [
        *("model=mlp", "model.width=16", "optimizer=schedule_free", "scheduler=constant", "epochs=4", "tracking=none"),
        *(f"plugin_paths={plugin}", f"runs={tmp_path / 'runs'}"),
        *("checkpoint.every_n_epochs=1", "checkpoint.max_to_keep=9", "checkpoint.every_n_minutes=0"),
    ]


def test_the_averages_are_validated_tested_and_saved(options: list[str], plugin: str, capsys: pytest.CaptureFixture) -> None:
    result = run(load(options))
    folder = result.folder
    assert folder
    assert result.metrics["accuracy"] > 0.8
    best, facts = checkpoint.load(folder / BEST)
    tree = next(tree for path in states(folder) for tree, own in [checkpoint.load(path)] if own["step"] == facts["step"])
    assert all(group["trained"] for group in tree["optimizers"][0]["param_groups"])
    held = [own["z"] for own in tree["optimizers"][0]["state"].values()]
    for name in (name for name in best if name.endswith("weight")):
        x, y = best[name], tree["task"][name]
        assert (x - y).abs().max() > 1e-3
        assert any(z.shape == y.shape and torch.allclose(x, (y - 0.1 * z) / 0.9, atol=1e-5) for z in held)
    assert evaluate_run(folder, plugin_paths=[plugin]).metrics == result.metrics
    capsys.readouterr()
    assert evaluate_run(folder, "last", plugin_paths=[plugin]).metrics != result.metrics
    assert "has the weights in training, not their averages, which are in checkpoint=best" in capsys.readouterr().err


def test_a_training_that_is_stopped_goes_on_as_if_it_had_not_been(options: list[str]) -> None:
    whole = run(load(options)).folder

    def stop(epoch: int, _: object) -> None:
        if epoch == 3:
            raise RunPruned("stopped")

    with pytest.raises(RunPruned):
        run(load([*options, "run_name=stopped"]), watch=stop)
    stopped = run(load([*options, "run_name=stopped", "resume=auto"])).folder
    assert whole
    assert stopped
    assert compare(whole, stopped) == Comparison(4, "")


def test_what_averages_twice_is_refused(options: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^callback=ema: optimizer=schedule_free averages weights itself\."):
        run(load([*options, "callback=[ema]"]))


def test_statistics_that_are_not_averaged_are_told(options: list[str], capsys: pytest.CaptureFixture) -> None:
    run(load([*options, "model=resnet", "model.depth=8", "model.width=8", "epochs=1", "trainer.limit_batches=2"]))
    assert "note: optimizer=schedule_free averages weights: the running statistics of batch norm" in capsys.readouterr().err
