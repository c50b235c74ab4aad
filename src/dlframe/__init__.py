"""Config-driven deep learning with a plugin registry.

model = dlframe.load("runs/cnn-digits-...")     # a trained model: .predict(...), .metrics, .config, .task
result = dlframe.run("model=cnn", "epochs=3")   # train, test and save a run
config = dlframe.check("model=cnn")             # a checked config; nothing is built
"""

import os
import sys

# `python -m dlframe`: Python has put the current folder first. It is dropped, unless dlframe itself lies in it, before anything
# else is imported: even `from __future__ import` reads a file.
if (
    sys.argv[:1] == ["-m"]
    and sys.orig_argv[-len(sys.argv)].removeprefix("-m").partition(".")[0] == "dlframe"
    and not sys.flags.safe_path
    and sys.path[0] != os.path.dirname(os.path.dirname(__file__))
):
    del sys.path[0]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dlframe.config import Config
    from dlframe.serving.model import Model
    from dlframe.types import Result

__version__ = "0.1.0"


def load(run: "str | Path", *, plugin_paths: "Sequence[str]" = ()) -> "Model":
    """The trained model of a run.

    Args:
        run: The run directory.
        plugin_paths: Plugins that the run used, beside ./plugins and the installed ones.

    Raises:
        DlframeError: There is no finished run, a file is damaged, or a plugin is missing.
    """
    from pathlib import Path

    from dlframe.serving.model import Model

    return Model(Path(run), plugin_paths)


def run(*overrides: str) -> "Result":
    """Train, test and save a run, as `python -m dlframe OVERRIDES` does.

    Args:
        *overrides: As on the command line: "model=cnn", "optimizer.lr=0.01".

    Raises:
        DlframeError: The config is wrong, or the training cannot continue.
    """
    from dlframe.config import load as load_config
    from dlframe.jobs.train import run as train
    from dlframe.storage.private import keep_kernels_private

    keep_kernels_private()  # before a plugin imports torch
    return train(load_config(overrides))


def check(*overrides: str) -> "Config":
    """The checked config of a run; nothing is built, and torch is not imported.

    Raises:
        ConfigError: An override or a YAML file names something unknown, or holds a value outside its range.
    """
    from dlframe.config import load as load_config

    return load_config(overrides)
