"""Command `config [KEY=VALUE ...]`: what a command line gives, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlframe.config import load, load_options
from dlframe.reports import terminal
from dlframe.types import ConfigError, nearest, say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `config`.

    Args:
        package: The part to print alone, such as "optimizer" or "callback.ema"; all of it by default.
    """

    package: str = ""


def main(arguments: Sequence[str]) -> int:
    """Print the composed and checked config as YAML, with all defaults: `experiment=FILE` reads it back. Nothing is trained.

    Hydra's `--cfg job` does the same, and its `--package` is `package=PART`.

    Raises:
        ConfigError: The config is wrong, or has no such part.
    """
    from dlframe.config.yaml_files import written

    own = [text for text in arguments if text.startswith("package=")]
    package = load_options("config", Options, own).package
    config = load([text for text in arguments if text not in own])
    part: object = config.values
    for name in filter(None, package.split(".")):
        if not isinstance(part, dict) or name not in part:
            known = part if isinstance(part, dict) else ()
            raise ConfigError(f"package: the config has no such part. Received: {package}.{nearest(name, known)}", "package")
        part = part[name]
    terminal.warn_of_plugins()
    say(*written(part if isinstance(part, dict) else {package: part}).rstrip().split("\n"))
    return 0
