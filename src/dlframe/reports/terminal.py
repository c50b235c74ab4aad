"""Header and summary of a run in the terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from dlframe.config import Config, expand
from dlframe.registry import plugins
from dlframe.types import ConfigError, Dataset, Field, Result, printable, say, wrapped


def header(config: Config, dataset: Dataset, folder: Path | None, *, again: bool = False, others: bool = False) -> str:
    """Return the first line of a run; `again` if the run is resumed, `others` if other data are tested."""
    spec = dataset.spec
    sizes = " + ".join(f"{len(split):,}" for split in (dataset.train, dataset.validation, dataset.test))
    samples = f"{len(dataset.test):,} samples to test" if others else f"{sizes} samples to train, validate, test"
    trainer = config.trainer
    device = trainer.accelerator + (f" x {trainer.devices}" if trainer.devices != 1 else "")
    return (
        f"{config.values['model']['name']} on {spec.name}: {samples}; "
        f"{_fields(spec.inputs)}, {_fields(spec.targets)}; split {dataset.splits}; {dataset.source}; "
        f"data {dataset.fingerprint}; on {device}"
        + (f"; limited to {trainer.limit_batches} batches of each split" if trainer.limit_batches else "")
        + ("; trains, validates and tests the same samples" if trainer.overfit_batches else "")
        + (f"; {'resumes' if again else 'in'} {folder}" if folder else "")
    )


def stopped(config: Config, step: int) -> str:
    """Return the step of an interruption, and the command that resumes the run."""
    again = "auto" if config.run.resume in ("none", "") else config.run.resume
    overrides = [shlex.quote(text) for text in config.overrides if not text.startswith("resume=")]
    command = " ".join(["python -m dlframe", *overrides, shlex.quote(f"resume={again}")])
    return f"{f'stopped after step {step:,}' if step else 'stopped before the first checkpoint'}; resume: {command}"


def _fields(fields: Mapping[str, Field]) -> str:
    """Describe columns: kind and shape, or number of classes."""

    def described(name: str, field: Field) -> str:
        if field.kind == "class":
            more = f" and {len(field.names) - 6:,} more" if len(field.names) > 6 else ""
            return f"{len(field.names)} classes ({', '.join(field.names[:6])}{more})"
        shape = "x".join("*" if side is None else str(side) for side in field.shape)
        return " ".join(filter(None, (name if len(fields) > 1 else "", field.kind, shape)))

    return ", ".join(described(name, field) for name, field in fields.items())


def summary(result: Result, *, tested: bool = False, tracked: bool = True) -> str:
    """Return the last lines of a run: metrics, directory, next commands.

    Args:
        result: Result of the run.
        tested: Whether the run was just tested again, which is then no next command.
        tracked: Whether there is something to see in the tracker.
    """
    metric, interval = result.headline, result.interval
    name, baseline = result.baseline
    read = result.metric(metric)
    low, high = read.text(interval.low).removesuffix(" %"), read.text(interval.high)
    left_out = f"{interval.left_out}, " if interval.left_out else ""
    lines = [f"limited run, not a result: {result.limited}"] if result.limited else []
    lines += [
        f"test {metric} {read.text(interval.value)} (95 % interval {low} to {high}, {left_out}{result.samples:,} samples); "
        f"{name} {read.text(baseline[metric])}; {result.seconds:.1f} s"
    ]
    values = {key: value for key, value in result.metrics.items() if key != metric}
    others = [f"{key} {result.metric(key).text(value)}" for key, value in values.items() if not math.isnan(value)]
    if undefined := [key for key, value in values.items() if math.isnan(value)]:
        others += [f"{', '.join(undefined)} undefined"]
    lines += [f"     {', '.join(others)}"] if others else []
    lines += [f"     {note}" for note in result.notes]
    lines = [part for line in lines for part in wrapped(line, indent="     ")]
    if result.folder:
        folder = shlex.quote(str(result.folder))
        plugins = [shlex.quote(text) for text in result.overrides if text.startswith("plugin_paths=")]
        overrides = [shlex.quote(text) for text in map(_single, result.overrides) if not text.startswith("seed=")]
        place = [f"runs={runs}"] if (runs := shlex.quote(str(result.folder.parent))) != "runs" else []
        commands = [] if tested else [["test", folder, *plugins]]
        commands += [["-m", *overrides, "seed=0,1,2"], *([["ui", *place]] if tracked else [])]
        lines += [f"run  {folder}"]
        lines += [" ".join(["    " if i else "next", "python -m dlframe", *words]) for i, words in enumerate(commands)]
    return "\n".join(map(printable, lines))


def _single(override: str) -> str:
    """Quote an override whose commas would make a grid."""
    key, _, raw = override.partition("=")
    # Untrusted: plugins stay as they are, and ranges are not expanded.
    try:
        same = key == "plugin_paths" or ("(" not in raw and len(expand([override])) == 1)
    except ConfigError:  # an old name in the overrides of an earlier version's run
        same = True
    return override if same else f"{key}='{raw}'"


def warn_of_plugins() -> None:
    """Name the plugins that are left out, in whole or in part, as the config's loading has found them."""
    for name, fault in plugins.broken.items():
        say(f"warning: plugin '{name}' {fault}", error=True)
