"""Header and summary of a run in the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlframe.config import Config
from dlframe.config.overrides import quoted as as_one_value
from dlframe.config.overrides import unquoted
from dlframe.registry import plugins
from dlframe.types import Dataset, Field, Result, command_line, printable, quoted, say, wrapped


def header(
    config: Config, dataset: Dataset, folder: Path | None, *, again: bool = False, others: bool = False, store: str = ""
) -> str:
    """Return the first line of a run.

    Args:
        config: Its config.
        dataset: Its data.
        folder: Its directory; None for none.
        again: Whether the run is resumed.
        others: Whether other data are tested.
        store: Where it is tracked and why, if the surroundings say so.
    """
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
        + (f"; {store}" if store else "")
    )


def stopped(config: Config, step: int) -> str:
    """Return the step of an interruption, and the command that resumes the run."""
    again = "auto" if config.run.resume in ("none", "") else config.run.resume
    command = command_line(*(text for text in config.overrides if not text.startswith("resume=")), f"resume={again}")
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


OF_ONE_RUN = ("seed=", "register=", "profile=", "resume=")
"""What was typed for one run, and not for those that may be next."""


def summary(result: Result, typed: Sequence[str] = (), *, tested: str = "", tracked: bool = True) -> str:
    """Return the last lines of a run: metrics, directory, next commands.

    Args:
        result: The result, whose overrides a run directory may tell, which may be somebody else's.
        typed: Overrides that the user has typed. Of the others, no command has those that name code, a place or an address.
        tested: Split by which the run was just scored again, which is then no next command; empty for its end.
        tracked: Whether there is something to see in the tracker.
    """
    metric, interval = result.headline, result.interval
    name, baseline = result.baseline
    read = result.metric(metric)
    low, high = read.text(interval.low).removesuffix(" %"), read.text(interval.high)
    bounds = "undefined" if math.isnan(interval.low) or math.isnan(interval.high) else f"{low} to {high}"
    left_out = f"{interval.left_out}, " if interval.left_out else ""
    lines = [f"limited run, not a result: {result.limited}"] if result.limited else []
    part = tested or "test"
    lines += [
        f"{part} {metric} {read.text(interval.value)} (95 % interval {bounds}, {left_out}{result.samples:,} samples); "
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
        folder, runs = result.folder, result.folder.parent
        plugins = [text for text in typed if text.startswith("plugin_paths=")]
        others = [text for text in result.overrides if text not in typed]
        named = [text for text in others if _names_a_place(text)]
        overrides = [_single(text) for text in (*typed, *others) if text not in named and not text.startswith(OF_ONE_RUN)]
        commands = [] if tested else [["test", folder, *plugins]]
        commands += [["-m", *overrides, "seed=0,1,2"]]
        commands += [["ui", *([f"runs={runs}"] if str(runs) != "runs" else [])]] if tracked else []
        lines += [f"run  {quoted(folder)}"]
        lines += [f"{'    ' if i else 'next'} {command_line(*words)}" for i, words in enumerate(commands)]
        if named:
            keys = ", ".join(sorted({text.partition("=")[0] for text in named}))
            lines += [f"     without {keys}: only the run directory names it, so look at overrides.txt before you type it"]
    return "\n".join(map(printable, lines))


CLASSES = 20
"""Classes whose metrics are shown."""
WIDEST = 40
"""Characters of a class that are shown."""


def by_class(columns: Mapping[str, Sequence], result: Result) -> list[str]:
    """Return a line for each class with its metrics: of many classes, for the worst.

    Args:
        columns: By name: class, metrics of which the first of F1 and AP orders the classes, and a count; empty for none.
        result: The result, which tells how metrics are read.
    """
    if not columns:
        return []
    key = "f1" if "f1" in columns else "ap"
    order = list(range(len(columns["class"])))
    if len(order) > CLASSES:
        order = sorted(order, key=lambda i: math.inf if math.isnan(columns[key][i]) else columns[key][i])[:CLASSES]

    def shown(name: str, value: Any) -> str:
        if isinstance(value, str):
            return printable(value if len(value) <= WIDEST else value[: WIDEST - 1] + "…")
        return result.metric(name).text(value) if isinstance(value, float) else f"{value:,}"

    rows = [[*columns], *([shown(name, column[i]) for name, column in columns.items()] for i in order)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    more = [f"the {CLASSES} with the lowest {key} of {len(columns['class']):,}"] if len(order) < len(columns["class"]) else []
    return lines + more


def _names_a_place(override: str) -> bool:
    """Return whether an override names code, a file or an address."""
    key, _, raw = override.partition("=")
    return (
        key in ("plugin_paths", "runs", "resume") or key.endswith((".path", ".uri", ".url")) or bool(re.search(r"[/\\:]", raw))
    )


def _single(override: str) -> str:
    """Quote an override whose commas would make a grid."""
    key, _, raw = override.partition("=")
    is_list = raw.startswith("[") or key == "plugin_paths"
    return override if is_list or unquoted(raw) != raw else f"{key}={as_one_value(raw)}"


def warn_of_plugins() -> None:
    """Name the plugins that are left out, in whole or in part, as the config's loading has found them."""
    for name, fault in plugins.broken.items():
        say(f"warning: plugin '{name}' {fault}", error=True)
