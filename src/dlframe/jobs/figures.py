"""Command `figures RUN`: the figures of runs, drawn from their directories."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlframe.config import load_options
from dlframe.jobs.evaluate import prepared
from dlframe.jobs.train import scored_part
from dlframe.reports import description
from dlframe.runs import run_directory
from dlframe.runs.journal import Journal
from dlframe.tracking.upload_state import has_pending
from dlframe.types import ConfigError, DataError, say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `figures`.

    Args:
        plugin_paths: Files and folders of plugins that the runs used. Their own configs are data and have none loaded.
    """

    plugin_paths: tuple[str, ...] = ()


def main(arguments: Sequence[str]) -> int:
    """Draw the figures of runs into their directories, and upload them where the runs are tracked.

    Each RUN is a run directory, such as that of a trial of a sweep: only single runs draw their figures themselves. The test
    split is scored again with the best weights, so that the data must be those of the training.

    Raises:
        DlframeError: There is no such run, its data or weights are not what they were, or a process is writing it.
    """
    folders = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    options = load_options("figures", Options, [argument for argument in arguments if argument not in folders])
    if not folders:
        raise ConfigError("figures: requires run directories. Try: python -m dlframe figures runs/...")
    for folder in folders:
        drawn = draw(Path(folder), options.plugin_paths)
        say(f"{Path(folder) / run_directory.FIGURES}: {', '.join(drawn)}")
    return 0


def draw(folder: Path, plugin_paths: Sequence[str] = ()) -> list[str]:
    """Draw the figures of a run, and upload them if it is tracked.

    Args:
        folder: Run directory; may be untrusted.
        plugin_paths: Plugins that the run used, beside ./plugins and the installed ones.

    Returns:
        The names of the figures.

    Raises:
        DlframeError: As `main`.
    """
    run = prepared(folder, plugin_paths=plugin_paths, command="figures")
    run_directory.check_links(folder, "figures")
    journal = Journal(folder)
    with contextlib.closing(journal):
        scored = run.score()
        dataset = scored_part(run.dataset, scored)
        names = run_directory.write_figures(run.config, dataset, scored.task, scored.scores, folder, journal)
        with contextlib.suppress(DataError):  # of a run that has not ended
            journal.write("description", text=description.of_run(run_directory.read_result(folder), run.config))
    if has_pending(folder):
        from dlframe.tracking import upload

        if late := upload(folder):
            say(late, error=True)
    return names
