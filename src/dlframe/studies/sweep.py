"""Command `sweep`: a search for hyperparameters that can be stopped, continued, and shared by processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.config import load_options
from dlframe.registry import Place
from dlframe.runs.study_journal import write_trial
from dlframe.storage.known import is_known
from dlframe.studies import driver, grid, options, report
from dlframe.studies.options import Options, Search
from dlframe.studies.space import space_of
from dlframe.studies.study import FOLDER, Study, check_name, check_own, read_manifest
from dlframe.types import ConfigError, DlframeError, TrialRecord, command_line, nearest, read_text, say

if TYPE_CHECKING:
    from dlframe.tracking import Tracker

__all__ = ["SECTIONS", "Options", "main"]

SECTIONS = {"search.": Search}
"""Further options, by the beginning of their keys."""
FRESH = 1001
"""First of the seeds with which the best trial is trained again."""


def main(arguments: Sequence[str]) -> int:
    """Search for the best options: `model.width=choice(16,32)`, `optimizer.lr=tag(log,interval(1e-4,1e-1))`, `trials=50`.

    The metric that selects the best epoch of a run is compared, of the validation split; the test split plays no part. Without
    a space, that of the chosen components is searched. `sampler=`, `pruner=` and `executor=` choose how (`list sampler`), and
    `search=NAME` a file of conf/search. The same command continues a sweep that was stopped or killed, and started a second
    time it helps the first. `sweep status NAME` shows the trials, `sweep best NAME` the best one, `sweep export NAME` writes it
    to conf/experiment/NAME.yaml, `sweep importance NAME` ranks the options, and `sweep report NAME` draws figures and a page.

    Raises:
        DlframeError: The space or an option is wrong, or the sweep has another manifest.
    """
    if arguments and "=" not in arguments[0]:
        return _look(arguments)
    chosen = options.read("sweep", arguments)
    space = space_of(chosen.overrides)
    trials = chosen.options.trials
    if driver.is_exhaustive(chosen):
        space = space.listed()
        trials = min(trials, len(space.grid)) if driver.is_typed(chosen, "trials") else len(space.grid)
    elif space.points() == 1:
        raise ConfigError(f"sweep: the space has one point. Try: {command_line('train', *_single(space))}")
    study = driver.begin(space, chosen, trials=trials, stem="sweep")
    if driver.is_worker():
        return driver.work_as_worker(study, space, chosen)
    if space.is_default:
        say("note: no option varies; searched is what the components say", error=True)
    if 0 < (points := space.points()) < trials:
        say(f"note: the space has {points} points, fewer than trials={trials}; sampler=grid tries each once", error=True)
    say(_header(study))
    config = next(iter(space.configs.values()))
    with driver.tracked(study, config) as trackers:
        driver.run(study, space, chosen, "sweep", main, trackers)
        status = _summarize(study, chosen, trackers)
        _write_report(study, command_line("sweep", *arguments), draw=config.run.figures != "none")
    if study.best():
        say(f"next {command_line('sweep', 'export', study.name)}")
    return status


def _write_report(study: Study, command: str, *, draw: bool) -> None:
    """Write the report of a search; without room for it, the search is none the worse."""
    try:
        say(f"page {report.write(study, command=command, draw=draw)}")
    except DlframeError as error:
        say(f"warning: no report: {error}", error=True)


def _single(space: Any) -> list[str]:
    return [*space.fixed, *(f"{axis.key}={next(axis.samples())}" for axis in space.axes)]


def line(study: Study, record: TrialRecord) -> str:
    """Describe a trial."""
    values = zip(study.objectives, record.values, strict=False)
    what = ", ".join(objective.read.text(value) for objective, value in values) if record.state == "complete" else record.state
    return f"trial {record.number}: {' '.join(record.overrides)}: {what}" + f": {record.failure}" * bool(record.failure)


def _header(study: Study) -> str:
    manifest, before = study.manifest, len(study.trials())
    pruner, sampler = manifest.pruner["name"], manifest.sampler["name"]
    what = f"{sampler} over {'; '.join(manifest.space)}" + (f"; pruner {pruner}" if pruner != "none" else "")
    done = f", {before} begun before" if before else ""
    objectives = ", ".join(f"{o.metric} ({o.better})" for o in study.objectives)
    return f"sweep {study.name}: {manifest.trials} trials{done}; {objectives}; {what}; in {study.folder}"


def _summarize(study: Study, chosen: options.Arguments, trackers: Sequence[Tracker]) -> int:
    """Print the best trial, train it with fresh seeds, and tell how good it is; the exit status."""
    records = study.records()
    counts = {state: sum(r.state == state for r in records) for state in ("complete", "pruned", "failed", "running")}
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "complete"))
    best = study.best(records)
    if not best:
        return 1
    if len(study.objectives) > 1:
        front = study.front()
        say(f"{len(front)} trials that no other one beats in {' and '.join(o.metric for o in study.objectives)}:")
        say(*(f"     {line(study, record)}" for record in front))
        return int(bool(counts["failed"]))
    objective = study.objectives[0]
    value = objective.read.text(best.values[0])
    over = f" (mean of {study.manifest.seeds} seeds)" if study.manifest.seeds > 1 else ""
    say(f"best trial {best.number}: {objective.metric} {value}{over}: {' '.join(best.overrides)}", f"run  {best.run}")
    if not list(Path(best.run).glob("figures/*")):
        say(f"draw {command_line('figures', best.run)}")
    if len(records) >= study.manifest.trials:
        _train_fresh(study, best, counts["complete"], chosen, trackers)
    return int(bool(counts["failed"]))


def _train_fresh(
    study: Study, best: TrialRecord, complete: int, chosen: options.Arguments, trackers: Sequence[Tracker]
) -> None:
    """Train the best trial with seeds that the search has not seen."""
    count = chosen.search.fresh_seeds
    overrides = [*study.manifest.fixed, *best.overrides]
    said = f"the best value of {complete} trials is too good on average" if complete > 1 else "one value says little"
    if not count or "seed" in best.options:
        rest = [text for text in overrides if not text.startswith("seed=")]
        say(f"     {said}: train it with new seeds", f"     {command_line('-m', *rest, 'seed=1001,1002,1003')}")
        return
    say(f"     {said}: trained again with {count} fresh seeds")
    seeds = ",".join(str(FRESH + i) for i in range(count))
    shared = [text for text in chosen.typed if text.partition("=")[0].partition(".")[0] in ("executor", "storage", "workers")]
    rest = [text for text in overrides if not text.startswith(("seed=", "run_name="))]
    name, objective = report.fresh_name(study, best), study.objectives[0]
    compared = f"search.objectives=[{objective.metric}]"
    write_trial(study.folder.with_name(name), study=study.name, trial=best.number, options=best.overrides)
    grid.run_grid([*rest, f"seed={seeds}", f"name={name}", compared, *shared], trackers)
    if fresh := report.fresh_of(study, best):
        say(f"     {fresh.text(objective, best.values[0])}")


def _look(arguments: Sequence[str]) -> int:
    """Show a sweep, or take its best trial on."""
    views = {"status": _status, "best": _best, "export": _export, "importance": _importance, "report": _report}
    view, *rest = arguments
    if view not in views:
        raise ConfigError(f"sweep: must be key=value or a view.{nearest(view, views)}")
    names = [text for text in rest if "=" not in text]
    chosen = load_options("sweep", Views, [text for text in rest if "=" in text])
    if len(names) != 1:
        known = sorted(path.name for path in (Path(chosen.runs) / FOLDER).glob("*/"))
        raise ConfigError(f"sweep {view}: requires the name of a sweep. In {chosen.runs}: {', '.join(known) or 'none'}.")
    check_name(names[0])
    folder = Path(chosen.runs) / FOLDER / names[0]
    manifest = read_manifest(folder)
    if manifest.storage != "journal" and not is_known(study=folder.resolve()):
        raise ConfigError(f"sweep {view}: {folder} was not begun by you in this place, and its trials are in a database.")
    return views[view](Study(folder, manifest))


@dataclass(frozen=True, kw_only=True)
class Views:
    """Options of `sweep status` and the like.

    Args:
        runs: Folder of the runs.
    """

    runs: Place = "runs"


def _status(study: Study) -> int:
    say(_header(study))
    for record in study.records():
        say(line(study, record))
    return 0


def _best_of(study: Study) -> TrialRecord:
    if not (best := study.best()):
        raise ConfigError(f"sweep: '{study.name}' has no complete trial yet.")
    return best


def _best(study: Study) -> int:
    if len(study.objectives) > 1:
        say(*(line(study, record) for record in study.front()))
        return 0
    best = _best_of(study)
    say(line(study, best), f"run  {best.run}")
    return 0


def _importance(study: Study) -> int:
    for key, share in study.importance().items():
        say(f"{share:6.1%}  {key}")
    return 0


def _report(study: Study) -> int:
    say(f"page {report.write(study)}")
    return 0


def _export(study: Study) -> int:
    """Write the best trial as an experiment."""
    from dlframe.config import LISTS
    from dlframe.config.compose import assign
    from dlframe.config.overrides import assignments_of, choices_of, given_keys
    from dlframe.config.yaml_files import written

    check_own(study.folder)
    best = _best_of(study)
    given = given_keys([*study.manifest.fixed, *best.overrides])
    choices = choices_of(given)
    values: dict[str, Any] = {}
    for key, value in assignments_of(given, {group: {"name": name} for group, name in choices.items()}):
        if key != "plugin_paths":
            assign(values, key, value)
    for key in LISTS:
        if key in choices:
            values[key] = {name: values.get(key, {}).get(name, {}) for name in choices.pop(key)}
    defaults = [{f"override /{group}": name} for group, name in choices.items()]
    path = Path("conf") / "experiment" / f"{study.name}.yaml"
    document = {"defaults": [*defaults, "_self_"], **values}
    said = f"Trial {best.number} of the sweep {study.name}: {study.objectives[0].metric} {best.values[0]:.6g}"
    head = f"# @package _global_\n# {said}\n"
    text = head + written(document)
    try:
        if os.path.lexists(path) and read_text(path, 2**20, errors="replace") != text:
            raise ConfigError(f"sweep export: {path} is there, and is another one. Move it away first.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}.") from None
    say(f"written: {path}", f"next {command_line(f'experiment={study.name}')}")
    return 0
