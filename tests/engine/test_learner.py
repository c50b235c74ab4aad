"""Parameter groups; losses and weights that are not finite; models without gradients; callbacks."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dlframe.config import load
from dlframe.engine.checks.finite import undefined
from dlframe.engine.learner import parameter_groups
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.runs.journal import ended, history
from dlframe.runs.recorder import BEST, states
from dlframe.storage import checkpoint
from dlframe.tasks.classification import Classification
from dlframe.types import TrainingError

pytestmark = pytest.mark.usefixtures("no_figures")


def test_decay_skips_norms_and_biases():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    decayed, spared = parameter_groups(network, lr=0.1, decay="weights")
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1, 1]
    assert spared["weight_decay"] == 0
    assert "weight_decay" not in decayed
    (everything,) = parameter_groups(network, lr=0.1, decay="all")
    assert len(everything["params"]) == 6


def test_a_network_may_scale_its_own_rates():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(2, 2, bias=False), nn.Linear(2, 2)

        def parameter_groups(self) -> list[dict]:
            return [
                {"params": list(self.body.parameters()), "lr_scale": 0.1},
                {"params": list(self.head.parameters()), "lr_scale": 1.0},
            ]

    groups = parameter_groups(Two(), lr=1.0, decay="weights")
    assert [(g["lr"], len(g["params"]), g.get("weight_decay")) for g in groups] == [(0.1, 1, None), (1, 1, None), (1, 1, 0)]


def train(tmp_path: Path, *overrides: str):
    return run(load(["model=mlp", "epochs=2", "tracking=none", f"runs={tmp_path}", *overrides]))


@pytest.fixture
def spoil(monkeypatch):
    """Makes the loss of some batches, counted from 1 over all networks, something that is not finite.

    The two samples that pass through a model before it is trained do not count.
    """

    def at(spoilt: dict[int, float], task: type = Classification) -> None:
        count = itertools.count(1)
        own = task.loss

        def loss(self, batch, *rest):
            return own(self, batch, *rest) * (spoilt.get(next(count), 1.0) if len(batch) > 2 else 1.0)

        monkeypatch.setattr(task, "loss", loss)

    return at


def test_a_run_stops_at_the_step_whose_loss_is_not_finite(tmp_path, spoil):
    spoil({21: math.inf})
    with pytest.raises(TrainingError) as error:
        train(tmp_path, "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=10")
    assert re.fullmatch(
        r"the loss is inf at step 21 \(epoch 2, learning rate [\d.e-]+, gradient norm (inf|nan)\)\. The checkpoints before are "
        r"kept\. Try a smaller optimizer\.lr, gradient_clip_val=1, or on_nan=skip to leave such batches out\.",
        str(error.value),
    )
    (folder,) = tmp_path.iterdir()
    assert [state.name for state in states(folder)] == ["state-000000020.safetensors", "state-000000010.safetensors"]
    assert ended(folder) == "FAILED"


def test_the_message_names_the_network(tmp_path, spoil):
    spoil({6: math.nan})
    with pytest.raises(TrainingError, match=r"^the loss of the generator is nan at step 3 \(epoch 1"):
        train(tmp_path, "model=gan")


def test_batches_without_a_finite_loss_can_be_left_out(tmp_path, spoil):
    spoil({3: math.nan, 20: math.inf})
    result = train(tmp_path, "on_nan=skip", "log_every_n_steps=1")
    curves = history(result.folder)
    assert curves["train/skipped"] == [(17, 1.0), (34, 2.0)]
    assert [step for step, _ in curves["train/loss"]] == [step for step in range(1, 35) if step not in (3, 20)]
    assert result.metrics["accuracy"] > 0.5


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(states(folder)[0])[0]["task"]


def test_a_step_without_the_batch_that_is_left_out(tmp_path, spoil, monkeypatch):
    """It is the step of the other batch alone: its gradient is not halved."""
    options = ("optimizer=sgd", "scheduler=constant", "epochs=1", "model.dropout=0", "on_nan=skip")
    spoil({2: math.nan})
    skipped = train(tmp_path / "skipped", *options, "accumulate_grad_batches=2", "trainer.limit_batches=2")
    assert [step for step, _ in history(skipped.folder)["train/loss"]] == [1]
    monkeypatch.undo()
    alone = train(tmp_path / "alone", *options, "trainer.limit_batches=1")
    for name, tensor in weights(alone.folder).items():
        torch.testing.assert_close(weights(skipped.folder)[name], tensor)


@pytest.mark.parametrize("model", ["mlp", "gan"])
def test_a_step_may_be_cut_into_batches(tmp_path, model):
    """Two steps of 16 + 16 + 16 + 16 samples give the weights of two of 64; what an epoch leaves is a step of its own size."""
    # The generator's loss compares means over a batch; its noise is drawn batch by batch.
    own = ("model.adversarial_weight=0", "networks.generator.lr=1e-30") if model == "gan" else ()
    options = (f"model={model}", "model.dropout=0", "optimizer=sgd", "scheduler=constant", "epochs=1", *own)
    whole = train(tmp_path / "whole", *options, "batch_size=64", "trainer.limit_batches=2")
    cut = train(tmp_path / "cut", *options, "batch_size=16", "accumulate_grad_batches=4", "trainer.limit_batches=8")
    left = train(tmp_path / "left", *options, "batch_size=16", "accumulate_grad_batches=4", "trainer.limit_batches=9")
    assert [int(states(r.folder)[0].stem[-9:]) for r in (whole, cut, left)] == [2, 2, 3]
    for name, tensor in weights(whole.folder).items():
        if "generator" not in name:
            torch.testing.assert_close(weights(cut.folder)[name], tensor, rtol=1e-4, atol=1e-5)


def test_weights_that_are_not_finite_are_neither_kept_nor_scored(tmp_path, monkeypatch):
    def ruin(self, batch, network, totals):
        with torch.no_grad():
            next(self.parameters()).fill_(math.inf)
        return torch.ones((), requires_grad=True)

    monkeypatch.setattr(Classification, "loss", ruin)
    with pytest.raises(TrainingError, match=r"^weights or buffers are no longer finite after step 17 \(epoch 1\)\."):
        train(tmp_path)
    assert [state for folder in tmp_path.iterdir() for state in states(folder)] == []


def test_buffers_are_looked_at_for_nan(tmp_path, monkeypatch):
    """Running statistics do not show in a loss of training."""
    own = Classification.loss

    def ruin(self, batch, *rest):
        next(m for m in self.modules() if isinstance(m, nn.BatchNorm2d)).running_mean.fill_(math.nan)
        return own(self, batch, *rest)

    monkeypatch.setattr(Classification, "loss", ruin)
    with pytest.raises(TrainingError, match=r"^weights or buffers are no longer finite after step 2 \(epoch 1\)\."):
        train(tmp_path / "nan", "model=resnet", "model.depth=8", "trainer.limit_batches=2")


def test_a_model_without_gradients_learns_by_what_it_sees(tmp_path):
    result = train(tmp_path, "model=lda", "epochs=1")
    assert result.metrics["accuracy"] > 0.93
    assert evaluate_run(result.folder).metrics == result.metrics


def test_a_callback_that_sees_batches_sees_each(tmp_path):
    (tmp_path / "counting.py").write_text(
        "from lightning.pytorch import Callback\n"
        "from dlframe.registry import callbacks\n\n"
        "@callbacks.register('counting')\n"
        "class Counting(Callback):\n"
        '    """Counts."""\n\n'
        "    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):\n"
        "        assert len(batch) == 1, 'several optimizer steps in one step of the Trainer'\n"
    )
    train(
        tmp_path / "runs", f"plugin_paths={tmp_path / 'counting.py'}", "callback=counting", "steps_per_execution=8", "epochs=1"
    )


def test_an_epoch_whose_scores_are_nan_is_never_the_best(tmp_path, monkeypatch):
    own, count = Classification.score, itertools.count()

    def score(self, batch):
        scores = own(self, batch)
        return {**scores, "probability": scores["probability"] * (math.nan if next(count) < nan_calls else 1.0)}

    monkeypatch.setattr(Classification, "score", score)
    nan_calls = 2  # the first of two epochs: 360 samples, in two batches
    result = train(tmp_path)
    assert checkpoint.read_facts(result.folder / BEST)["epoch"] == 1
    nan_calls = 10**6
    with pytest.raises(TrainingError, match=r"^val/accuracy was undefined in every epoch.*Try a smaller optimizer\.lr"):
        train(tmp_path)


@pytest.mark.parametrize(("loss", "way"), [(0.5, "another split"), (math.nan, "a smaller optimizer.lr")])
def test_what_to_try_where_the_monitored_metric_is_undefined(loss, way):
    assert str(undefined("val/ap", {"val/ap": math.nan, "val/loss": loss})).endswith(f"Try {way}, or another monitor.")
