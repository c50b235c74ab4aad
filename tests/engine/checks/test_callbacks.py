"""Callbacks of Lightning and of users: what they log is in the run, and what would have no effect is refused."""

from __future__ import annotations

import pytest

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.runs.journal import read
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")

PLUGIN = """
from lightning.pytorch import Callback, callbacks as theirs
from dlframe.registry import callbacks


@callbacks.register("rates")
def rates(): return theirs.LearningRateMonitor(logging_interval="epoch")

@callbacks.register("devices")
def devices(): return theirs.DeviceStatsMonitor(cpu_stats=True)

@callbacks.register("timer")
def timer(): return theirs.Timer()

@callbacks.register("summary")
def summary(): return theirs.ModelSummary()

@callbacks.register("bar")
def bar(): return theirs.TQDMProgressBar()

@callbacks.register("own")
class Own(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("own/epoch", float(trainer.current_epoch))
        trainer.logger.log_metrics({"own/direct": 7}, step=trainer.global_step)

@callbacks.register("averaged")
def averaged(): return theirs.StochasticWeightAveraging(swa_lrs=0.01)

@callbacks.register("saved")
def saved(): return theirs.ModelCheckpoint()

@callbacks.register("accumulated")
def accumulated(): return theirs.GradientAccumulationScheduler({0: 2})
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("plugin") / "own.py"
    file.write_text(PLUGIN)
    return f"plugin_paths={file}"


def test_what_callbacks_log_is_in_the_run(plugin, tmp_path):
    chosen = "callback=[rates,devices,timer,summary,bar,own]"
    result = run(load([plugin, "model=mlp", "epochs=2", "tracking=none", f"runs={tmp_path}", chosen]))
    assert result.folder
    logged: dict[str, list[tuple[int, float]]] = {}
    for record in read(result.folder):
        for name, value in record.get("values", {}).items():
            logged.setdefault(name, []).append((record["step"], value))
    assert logged["own/epoch"] == [(17, 0.0), (34, 1.0)]
    assert logged["own/direct"] == [(17, 7.0), (34, 7.0)]
    assert len(logged["lr-AdamW/pg1"]) == 2
    alone = run(load([plugin, "model=mlp", "epochs=2", "tracking=none", f"runs={tmp_path}"]))
    assert alone.metrics == result.metrics


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("averaged", "Lightning's StochasticWeightAveraging has no effect here. Try: callback=swa"),
        (
            "saved",
            "Lightning's ModelCheckpoint has no effect here. Try: checkpoint.every_n_epochs=1 or checkpoint.every_n_steps=N",
        ),
        ("accumulated", "Lightning's GradientAccumulationScheduler has no effect here. Try: accumulate_grad_batches=N"),
    ],
)
def test_a_callback_without_effect_is_refused(name, message, plugin, tmp_path):
    with pytest.raises(ConfigError) as error:
        run(load([plugin, "model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path}", f"callback={name}"]))
    assert str(error.value) == f"callback={name}: {message}"
