"""Runs that a command compares: named, or trained first."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dlframe.analysis.runs import Run, read_run
from dlframe.config import load_options
from dlframe.runs.run_directory import RESULT
from dlframe.storage.known import is_known
from dlframe.types import ConfigError, command_line, printable, say

if TYPE_CHECKING:
    from dlframe.studies.space import Space
    from dlframe.studies.study import Study
    from dlframe.tracking import Tracker

T = TypeVar("T")


def split(command: str, options: type[T], arguments: Sequence[str]) -> tuple[T, list[str], list[str]]:
    """Return the options of a command, the runs that it names, and the options of runs to train.

    Raises:
        ConfigError: An option is wrong, or there are runs of both kinds, or none.
    """
    own = {f.name for f in fields(options)}  # type: ignore[arg-type]  # a dataclass
    places = [text for text in arguments if "=" not in text or Path(text).is_dir()]
    others = [text for text in arguments if text not in places]
    lists = {f.name for f in fields(options) if str(f.type).startswith("tuple")}  # type: ignore[arg-type]
    typed = [_bracketed(text, lists) for text in others if text.partition("=")[0] in own]
    chosen = load_options(command, options, typed)
    rest = [text for text in others if text.partition("=")[0] not in own]
    if tables := getattr(chosen, "tables", ()):
        if places:
            received = f"{places[0]} and tables={','.join(tables)}"
            raise ConfigError(f"{command}: takes runs, or tables to make. Received both: {received}", "tables")
        return chosen, places, rest
    if places and rest:
        raise ConfigError(f"{command}: takes runs, or options of runs to train. Received both: {places[0]} and {rest[0]}")
    if not places and not rest:
        example = command_line(command, "model=cnn,rnn")
        raise ConfigError(f"{command}: requires runs, or options of runs to train. Try: {example}")
    return chosen, places, rest


def _bracketed(text: str, lists: Container[str]) -> str:
    """Return an option with a list of values as such a list is written: tables=a,b as tables=[a,b]."""
    key, _, raw = text.partition("=")
    return f"{key}=[{raw}]" if key in lists and raw and not raw.startswith("[") else text


def gather(
    command: str,
    places: Sequence[str],
    rest: Sequence[str],
    seeds: int,
    use: Callable[[list[Run], Study | None, list[Tracker]], Any],
) -> int:
    """Read runs, or train them as a grid first, and use them.

    Args:
        command: Name of the command, which begins that of the grid.
        places: Runs and studies that are named.
        rest: Options of runs to train.
        seeds: Number of seeds of each combination, unless `rest` names seeds.
        use: What is done with the runs, and with the study that was trained and the trackers, while these can still upload.

    Returns:
        Exit status: 1 if a run failed.

    Raises:
        DlframeError: A run cannot be read, or none is complete.
    """
    if not rest:
        use([read_run(folder) for place in places for folder in folders_of(command, place)], None, [])
        return 0
    return train(command, rest, seeds, use)


def train(
    command: str,
    rest: Sequence[str],
    seeds: int,
    use: Callable[[list[Run], Study | None, list[Tracker]], Any],
    *,
    stem: str = "",
) -> int:
    """Train runs as a grid, or take those that are there, and use them; arguments as of `gather`.

    Args:
        stem: Beginning of the name of the grid; the command if empty.
    """
    from dlframe.studies import grid

    status = 0

    def end(study: Study, space: Space, trackers: list[Tracker]) -> None:
        nonlocal status
        records = study.records()
        complete = [record for record in records if record.state == "complete"]
        others = [record for record in records if record.state != "complete"]
        say(*(f"failed: {' '.join(r.overrides)}: {r.failure or 'not finished'}" for r in others))
        if not complete:
            why = f": {others[0].failure}" if others and others[0].failure else ""
            raise ConfigError(f"{command}: no run of {study.name} is complete{why}")
        status = int(len(complete) < len(space.grid))
        use([read_run(Path(record.run)) for record in complete], study, trackers)

    is_given = any(text.startswith("seed=") for text in rest)
    own = ["reuse=true", *([] if is_given else [f"seed={','.join(map(str, range(seeds)))}"])]
    found = grid.train([*rest, *own], stem=stem or command, end=end)
    return found if isinstance(found, int) else status


def folders_of(command: str, place: str, runs: str = "runs") -> list[Path]:
    """Return the run directories that an argument names: one, or those of a study.

    Raises:
        ConfigError: There are none.
    """
    path = Path(place)
    if (path / "config.yaml").is_file():
        return [path]
    from dlframe.studies.study import FOLDER, MANIFEST, Study, read_manifest  # Optuna is not needed for runs

    study = path if (path / MANIFEST).is_file() else Path(runs) / FOLDER / place
    if not (study / MANIFEST).is_file():
        return [path]
    own = re.compile(re.escape(study.name) + r"-\d{4,}(-seed\d+)?")
    found = {folder for folder in study.parent.parent.iterdir() if own.fullmatch(folder.name)}
    if is_known(study=study.resolve()):  # its records may name runs of other studies, which were taken instead
        records = Study(study, read_manifest(study)).records_of_one_seed()
        found |= {Path(record.run) for record in records if record.state == "complete"}
    if not (finished := sorted(folder for folder in found if (folder / RESULT).is_file())):
        raise ConfigError(f"{command}: '{printable(study.name)}' has no complete run yet")
    return finished
