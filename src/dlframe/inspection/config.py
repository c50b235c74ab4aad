"""Command `config [KEY=VALUE ...]`: what a command line gives, without training."""

from __future__ import annotations

from collections.abc import Sequence

from dlframe.config import load
from dlframe.reports import terminal
from dlframe.types import say


def main(arguments: Sequence[str]) -> int:
    """Print the composed and checked config as YAML, with all defaults: `experiment=FILE` reads it back. Nothing is trained.

    Hydra's `--cfg job` does the same.

    Raises:
        ConfigError: The config is wrong.
    """
    from dlframe.config.yaml_files import written

    config = load(arguments)
    terminal.warn_of_plugins()
    say(*written(config.values).rstrip().split("\n"))
    return 0
