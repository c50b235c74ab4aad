"""Command `reproduce RUN`: the same training again, and whether it gives the same."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from dlframe.analysis.comparison import compare
from dlframe.analysis.runs import Model, Run, read_run
from dlframe.comparisons.presentation.words import bounds, size
from dlframe.config import Config, load_options, load_saved
from dlframe.registry import Place
from dlframe.runs import environment
from dlframe.runs.recorder import BEST
from dlframe.runs.run_directory import changed_code, new_folder, read_data, read_file
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, DataError, DlframeError, say, shortened

__all__ = ["Options", "main"]

MOST_BESIDE = 1000
"""Folders beside a run that are searched for its other seeds."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `reproduce`.

    Args:
        plugin_paths: Files and folders of plugins that the run used. Its own config is data and has none loaded.
        runs: Folder of the new run.
    """

    plugin_paths: tuple[str, ...] = ()
    runs: Place = "runs"


def main(arguments: Sequence[str]) -> int:
    """Train a finished run again from its record, and say whether the result is the same.

    First, what differs between then and now is listed: packages, machine, commit, changed files. The verdict is "identical"
    (the same weights and metrics, bit for bit), "within the noise" (another result, which other seeds of the model in the same
    folder explain, or without them the test examples) or "not reproduced", with the exit status 1. The new run is not tracked:
    a run directory may be somebody else's, and names no server here.

    Raises:
        DlframeError: There is no such run, or its data have changed.
    """
    places = [text for text in arguments if "=" not in text or Path(text).is_dir()]
    options = load_options("reproduce", Options, [text for text in arguments if text not in places])
    if len(places) != 1:
        raise ConfigError("reproduce: requires one run directory. Try: python -m dlframe reproduce runs/...")
    before = read_run(Path(places[0]))
    config = read_data(before.folder).located(load_saved(before.folder / "config.yaml", options.plugin_paths))
    name = shortened(f"{before.folder.name}-again", 100)
    config = config.changed(runs=options.runs, resume="none", run_name=name, tracking={"uri": "none"})
    for line in differences(before.folder, config):
        say(f"note: {line}", error=True)
    after = _train(config, before)
    return _verdict(before, after)


def differences(folder: Path, config: Config) -> list[str]:
    """Return what differs between the time of a run, whose config this is, and now, in words."""
    try:
        then = json.loads(read_file(folder, "environment.json"))
        packages, git = then["packages"], then["git"]
        now = environment.describe(environment.git_state().described, {})
        told = [
            f"{name} was {version} and is {now['packages'].get(name)}"
            for name, version in sorted(packages.items())
            if version != now["packages"].get(name)
        ]
        for key in ("python", "machine", "platform", "cpus"):
            if then.get(key) != now[key]:
                told.append(f"{key} was {then.get(key)} and is {now[key]}")
        if git.get("commit") != now["git"].get("commit"):
            told.append(f"commit was {str(git.get('commit'))[:12]} and is {str(now['git'].get('commit'))[:12]}")
        if git.get("changed"):
            told.append(f"files differed from the commit: {folder / 'changes.diff'}")
        if origin := then.get("initial_checkpoint"):
            told += _origin_changed(Path(origin["file"]), origin["sha256"])
        return [*told, *changed_code(folder, config)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder}: is damaged: {error}") from None


def _origin_changed(file: Path, sha256: str) -> list[str]:
    """Return what to say of the checkpoint that a run began with, if it is another one now."""
    try:
        return [] if checkpoint.sha256(file) == sha256 else [f"initial_checkpoint: {file} has other content than then"]
    except OSError:
        return [f"initial_checkpoint: {file} is not there any more"]


def _train(config: Config, before: Run) -> Run:
    """Train anew, on the same data, and return the run."""
    from dlframe.jobs.train import load_data, run

    dataset = load_data(config)
    if dataset.fingerprint != before.fingerprint:
        raise DataError(
            f"data={dataset.spec.name}: changed since the run: fingerprint must be {before.fingerprint}. "
            f"Received: {dataset.fingerprint}"
        )
    folder = new_folder(config)
    run(config, folder=folder, pending=[])
    return read_run(folder)


def _verdict(before: Run, after: Run) -> int:
    """Say whether two runs are the same; the exit status."""
    # Unlike ==, which NaN is not.
    same = repr(sorted(before.result.metrics.items())) == repr(sorted(after.result.metrics.items()))
    if same and _have_same_weights(before.folder, after.folder):
        say("identical: the same weights and metrics, bit for bit")
        return 0
    others = _other_seeds(before)
    metric = before.result.headline
    read, difference = before.result.metric(metric), after.result.metrics[metric] - before.result.metrics[metric]
    told = f"{metric} differs by {size(read, difference)}"
    if len(others) > 1:
        values = np.array([run.result.metrics[metric] for run in others])
        # A training with other rounding is at most another draw of the seed, on the same examples.
        most = float(stdtrit(len(values) - 1, 0.975)) * math.sqrt(2) * float(values.std(ddof=1))
        is_same, rule = abs(difference) <= most, f"{len(values)} seeds of this model explain {size(read, most)}"
    else:
        found = compare([Model("before", (before,)), Model("again", (after,))], over="examples")
        p_value = found.pairs[0].difference.p_value
        is_same = p_value >= 0.05 if p_value == p_value else not difference
        rule = f"{bounds(read, found.pairs[0].difference)} over the test examples; no further seeds, which would tell more"
    say(f"{'within the noise: other weights; ' if is_same else 'not reproduced: '}{told} ({rule})")
    return int(not is_same)


def _other_seeds(run: Run) -> list[Run]:
    """Return the runs beside a run that differ from it in the seed only, and itself."""
    found = {run.seed: run}
    for folder in sorted(run.folder.parent.glob("*/"))[:MOST_BESIDE]:
        with contextlib.suppress(DlframeError):
            other = read_run(folder)
            if other.model == run.model and other.fingerprint == run.fingerprint:
                found.setdefault(other.seed, other)
    return [*found.values()]


def _have_same_weights(*folders: Path) -> bool:
    """Return whether the best weights of two runs are the same, bit for bit."""
    from dlframe.jobs.verify_resume import difference
    from dlframe.storage.checkpoint import weights

    one, other = (weights(folder / BEST) for folder in folders)
    return difference(one, other) is None
