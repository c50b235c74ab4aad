"""What a step, a schedule and a callback do is what was asked for, in any precision and at any interval of validation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from dlframe.augmentations.image import Flip
from dlframe.config import load
from dlframe.engine import fit
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import load_data, run
from dlframe.runs.journal import history, read
from dlframe.runs.recorder import states
from dlframe.runs.run_directory import read_result
from dlframe.storage import checkpoint
from dlframe.tasks.classification import Classification
from dlframe.types import ConfigError, Result, TrainingError

pytestmark = pytest.mark.usefixtures("no_figures")

PLUGIN = '''
import torch
from torch import nn
from dlframe.registry import Positive, augmentations, models, optimizers
from dlframe.types import DataSpec


@optimizers.register("lbfgs")
class Lbfgs(torch.optim.LBFGS):
    """LBFGS.

    Args:
        lr: Learning rate.
    """

    def __init__(self, params, *, lr: Positive = 1.0) -> None:
        super().__init__([p for group in params for p in group["params"]], lr=lr)


@models.register("rooted")
class Rooted(nn.Module):
    """A network whose gradient is NaN for an image of one color, with a finite loss."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(64, 10), nn.BatchNorm1d(10)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        x = x.flatten(1)
        contrast = (self.scale * (x - x.mean(1, keepdim=True).detach())).square().sum(1, keepdim=True).sqrt()
        return self.norm(self.layer(x)) * (1 + contrast)


@augmentations.register("black")
class Black:
    """One black image among the training samples."""

    def __init__(self, spec: DataSpec) -> None: ...

    def __call__(self, batch, generator):
        images = batch.inputs.clone()
        images[batch.index == 100] = 0
        return batch.replace(inputs=images)
'''


def train(folder: Path, *overrides: str) -> Result:
    return run(load(["model=mlp", "model.width=8", "epochs=1", "tracking=none", f"runs={folder}", *overrides]))


def values(result: Result, name: str) -> list[tuple[int, float]]:
    return [*history(result.folder)[name]]


def last_weights(result: Result) -> dict[str, torch.Tensor]:
    return checkpoint.load(states(result.folder)[0])[0]["task"]


# --- clipping beside everything else


@pytest.fixture
def scaled(monkeypatch) -> None:
    """float16 on the CPU, with the scaler that Lightning takes on a GPU."""
    own = fit._trainer

    def with_scaler(*arguments, **options):
        trainer = own(*arguments, **options)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))
        return trainer

    monkeypatch.setattr(fit, "_trainer", with_scaler)


def moved(folder: Path, *overrides: str) -> float:
    """The distance that one step of gradient descent with rate 1 moves the weights: the norm of its gradient."""
    options = ["optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.weight_decay=0", "scheduler=constant"]
    options += ["gradient_clip_val=0.001", "trainer.limit_batches=2", "accumulate_grad_batches=2", *overrides]
    config = load(["model=mlp", "model.width=8", "epochs=1", "tracking=none", f"runs={folder}", *options])
    before = fit.build_task(config, load_data(config)).state_dict()
    after = last_weights(run(config))
    return math.sqrt(sum((after[name] - before[name]).double().square().sum() for name in before))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_is_as_long_as_its_clipped_gradient(tmp_path, precision):
    assert moved(tmp_path, f"trainer.precision={precision}") == pytest.approx(0.001, rel=1e-3)


@pytest.mark.usefixtures("scaled")
def test_a_scaled_gradient_is_clipped_in_its_own_unit(tmp_path):
    assert moved(tmp_path) == pytest.approx(0.001, rel=1e-3)


OPTIMIZERS = ["adamw", "sgd", "radam", "lion", "adafactor"]
"""Fused and not, of torch and of timm."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("networks", ["model=mlp", "model=gan"])
def test_precision_clipping_accumulation_and_skipping_go_together(tmp_path, optimizer, networks):
    options = ["trainer.precision=bf16-mixed", "gradient_clip_val=1", "accumulate_grad_batches=2", "on_nan=skip"]
    train(tmp_path, networks, "batch_size=32", f"optimizer={optimizer}", "trainer.limit_batches=4", *options)


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", ["1", "null"])
def test_a_scaler_goes_with_any_optimizer(tmp_path, optimizer, clip):
    train(tmp_path, f"optimizer={optimizer}", f"gradient_clip_val={clip}", "trainer.limit_batches=4")


def test_features_augmentations_and_optimizers_are_not_rounded(tmp_path, monkeypatch):
    """Autocast is for the network alone: a product elsewhere has float32."""
    seen: dict[str, bool] = {}

    def watched(owner: type, name: str) -> None:
        own = getattr(owner, name)

        def watching(self, *arguments, **options):
            seen[name] = torch.is_autocast_enabled("cpu")
            return own(self, *arguments, **options)

        monkeypatch.setattr(owner, name, watching)

    watched(Classification, "features")
    watched(Classification, "loss")
    watched(Flip, "__call__")
    watched(torch.optim.Adafactor, "step")
    train(tmp_path, "optimizer=adafactor", "augmentation=[flip]", "trainer.precision=bf16-mixed", "trainer.limit_batches=2")
    assert seen == {"features": False, "loss": True, "__call__": False, "step": False}


# --- gradients that are not finite


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("plugin") / "own.py"
    file.write_text(PLUGIN)
    return f"plugin_paths={file}"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_finite_loss_whose_gradient_is_not_is_left_out(tmp_path, plugin, accumulate):
    """The root of 0 in one image of 1,078: its batch leaves no trace in weights or running statistics."""
    options = [plugin, "model=rooted", "augmentation=[black]", "on_nan=skip", f"accumulate_grad_batches={accumulate}"]
    skipped = run(load([*options, "epochs=2", "tracking=none", f"runs={tmp_path / 'runs'}"]))
    assert values(skipped, "train/skipped")[-1][1] == 2
    state = last_weights(skipped)
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert state["model.norm.num_batches_tracked"] == 2 * (17 - 1)


def test_a_clipped_gradient_that_is_not_finite_is_named(tmp_path, plugin):
    config = load([plugin, "model=rooted", "augmentation=[black]", "gradient_clip_val=1", "tracking=none", f"runs={tmp_path}"])
    message = r"^the gradient norm is nan at step \d+ \(epoch 1\), with a finite loss\. .*on_nan=skip"
    with pytest.raises(TrainingError, match=message):
        run(config)


def test_a_gradient_that_is_not_finite_is_told_from_a_loss_that_is_not(tmp_path, plugin):
    config = load([plugin, "model=rooted", "augmentation=[black]", "tracking=none", f"runs={tmp_path}"])
    message = r"^weights or buffers are not finite since step \d+, whose loss was finite\. .*on_nan=skip"
    with pytest.raises(TrainingError, match=message):
        run(config)


def test_an_optimizer_that_needs_a_closure_is_refused(tmp_path, plugin):
    with pytest.raises(ConfigError, match=r"^optimizer=lbfgs: evaluates the loss itself, by a closure"):
        train(tmp_path / "runs", plugin, "optimizer=lbfgs")


@pytest.mark.parametrize(
    ("options", "note"),
    [
        (["batch_size=2000"], "batch_size=2000 is more than the 1,078 training samples: an epoch is one batch"),
        (
            ["accumulate_grad_batches=32"],
            "accumulate_grad_batches=32 is more than the 17 batches of an epoch: an epoch is one optimizer step",
        ),
        (
            ["model=resnet", "batch_size=359"],
            "1 of 1,078 training samples left out of each epoch, others each time: "
            "batch normalization needs 2 of a batch in each process",
        ),
    ],
)
def test_what_becomes_of_an_epoch_is_told(tmp_path, plugin, capsys, options, note):
    result = train(tmp_path, plugin, "model.width=4", *options)
    assert capsys.readouterr().err == f"note: {note}\n"
    steps = {"2000": 1, "32": 1, "359": 3}[options[-1].partition("=")[2]]
    assert values(result, "epoch") == [(steps, 0.0)]


def test_float16_needs_a_gpu():
    with pytest.raises(ConfigError, match=r"^trainer\.precision: a CPU has no float16 autocast\. Try: .*=bf16-mixed$"):
        load(["trainer.precision=16-mixed"])


def test_a_limited_run_is_marked(tmp_path, capsys):
    result = train(tmp_path, "trainer.limit_batches=1")
    assert result.limited == "trainer.limit_batches=1, 256 of 359 test samples"
    assert (
        "\nlimited run, not a result: trainer.limit_batches=1, 256 of 359 test samples\ntest accuracy"
        in capsys.readouterr().out
    )
    assert read_result(result.folder).limited == result.limited
    (start,) = [record for record in read(result.folder) if record["kind"] == "start"]
    assert start["tags"]["limited"] == "trainer.limit_batches=1"
    assert train(tmp_path).limited == ""


def test_batch_norm_of_a_single_value_names_the_batch_size(tmp_path):
    with pytest.raises(TrainingError, match=r"^batch_size: batch norm needs more than one .* Try: batch_size=32$"):
        train(tmp_path, "model=resnet", "model.depth=18", "batch_size=1")


# --- schedules and callbacks


def test_the_logged_rate_is_that_of_the_step(tmp_path):
    """torch's one-cycle ends at lr / div_factor / final_div_factor: the rate of the last step, and of none after it."""
    result = train(tmp_path, "epochs=2", "optimizer.lr=0.001")
    assert values(result, "lr")[-1] == (34, pytest.approx(0.001 / 25 / 1e4))


def test_a_rate_that_waits_for_progress_sees_each_validation_once(tmp_path):
    """Three validations, each better: the rate stays."""
    options = ["epochs=12", "validate_every=4", "scheduler=plateau", "scheduler.patience=1", "optimizer.lr=2e-4"]
    result = train(tmp_path, *options)
    losses = [value for _, value in values(result, "val/loss")]
    assert losses == sorted(losses, reverse=True)
    assert {rate for _, rate in values(result, "lr")} == {2e-4}


@pytest.mark.parametrize(("every", "patience", "last"), [(1, 2, 3), (3, 2, 6), (3, 4, 9)])
def test_patience_is_counted_in_epochs(tmp_path, every, patience, last):
    """Nothing improves after the first validation: stopped at the first one that is `patience` epochs later."""
    stopping = [
        "callback=[early_stopping]",
        f"callback.early_stopping.patience={patience}",
        "callback.early_stopping.min_delta=9",
    ]
    result = train(tmp_path, "epochs=12", f"validate_every={every}", *stopping, "callback.early_stopping.monitor=val/loss")
    assert values(result, "epoch")[-1][1] == last - 1


def test_a_metric_that_rises_is_waited_for_in_its_own_direction(tmp_path):
    stopping = ["callback=[early_stopping]", "callback.early_stopping.patience=2", "callback.early_stopping.monitor=val/f1"]
    result = train(tmp_path, "epochs=6", "optimizer.lr=1e-4", *stopping)
    assert values(result, "epoch")[-1][1] == 5
    with pytest.raises(ConfigError, match=r"\.mode: the metric is better at its max\. Received: 'min'\.$"):
        load(["model=mlp", *stopping, "callback.early_stopping.mode=min"])


def test_the_last_epoch_is_validated(tmp_path):
    result = train(tmp_path, "epochs=4", "validate_every=3")
    assert [step for step, _ in values(result, "val/loss")] == [51, 68]


def test_the_last_checkpoint_of_averaged_weights_scores_the_averages(tmp_path):
    """The last validation, which is the best here, scored the averages."""
    result = train(tmp_path, "epochs=3", "callback=[ema]", "callback.ema.decay=0.9")
    assert evaluate_run(result.folder, "last").metrics == result.metrics


def test_a_milestone_is_at_its_step():
    from dlframe.schedulers.schedules import step

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = step(optimizer, 100, milestones=(0.28, 0.55), gamma=0.1)
    rates = []
    for _ in range(100):
        rates.append(round(optimizer.param_groups[0]["lr"], 6))
        optimizer.step()
        schedule.step()
    assert (rates.index(0.1), rates.index(0.01)) == (28, 55)


def test_options_of_a_run_do_not_reach_the_next(tmp_path):
    threads = torch.get_num_threads()
    train(tmp_path, "trainer.num_threads=2", "trainer.deterministic=true", "trainer.limit_batches=1")
    assert torch.are_deterministic_algorithms_enabled()
    train(tmp_path, "trainer.limit_batches=1")
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


# --- processes


def test_torchrun_without_devices_is_told_in_every_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"torchrun started 2 processes .* Try: trainer=ddp trainer\.devices=2$"):
        load(["model=mlp"])


def test_a_rank_that_is_left_over_is_told(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match=r"^RANK=1 is in the environment, but no launcher .* Try: unset RANK$"):
        load(["model=mlp"])
