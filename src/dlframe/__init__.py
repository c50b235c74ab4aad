"""dlframe: config-driven deep-learning training with a plugin registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dlframe.config import Config
    from dlframe.serving.trained_model import TrainedModel
    from dlframe.types import Result

__version__ = "0.1.0"

__all__ = ["__version__", "check", "load", "run"]


def check(*overrides: str) -> Config:
    """Check a config, without running it: `check("model=cnn", "optimizer.lr=0.01")`.

    Args:
        overrides: As on the command line.

    Raises:
        DlframeError: A name is unknown, or a value is outside its range.
    """
    from dlframe.config import load

    return load(_texts(overrides))


def run(*overrides: str) -> Result:
    """Train, test and save a run: `run("model=cnn", "epochs=3")`. Prints what the command line prints.

    Args:
        overrides: As on the command line.

    Raises:
        DlframeError: Something that the user can fix.
    """
    config = check(*overrides)
    from dlframe.jobs import train

    return train.run(config)


def load(run: str | Path, *, checkpoint: str = "best", plugin_paths: Sequence[str] = ()) -> TrainedModel:
    """Load a trained model: `load("runs/cnn-digits-20261123-075006").predict("photo.jpg")`.

    Args:
        run: A run directory, or the folder of an exported model.
        checkpoint: "best", the exported weights; "last", or the path of another checkpoint of the run.
        plugin_paths: Files and folders of plugins that the run used; they are code, and no run loads any by itself.

    Raises:
        DlframeError: The folder holds no model, or one of another version, or one that needs a plugin.
    """
    from dlframe.serving.trained_model import TrainedModel

    return TrainedModel(run, checkpoint=checkpoint, plugin_paths=plugin_paths)


def _texts(overrides: Sequence[str]) -> list[str]:
    from dlframe.types import ConfigError

    for text in overrides:
        if not isinstance(text, str):
            raise ConfigError(f'overrides: must be texts such as "model=cnn", one an argument. Received: {text!r}.')
    return list(overrides)
