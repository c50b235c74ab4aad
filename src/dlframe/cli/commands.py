"""The table of commands. A command is a row here and a module that has `main`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: Word that chooses it; "-m" is a flag, which may stand anywhere.
        usage: What follows the name.
        summary: What it does.
        module: Module with `main`, from arguments to exit status, whose docstring is the help of the command, and, where
            the command has options of its own, `Options`, a dataclass. Imported when the command is chosen.
        trains: The options of a run are arguments too, and all arguments are key=value.
    """

    name: str
    usage: str
    summary: str
    module: str
    trains: bool = False

    @property
    def line(self) -> str:
        """What one types."""
        name = "" if self.name == TRAIN else self.name
        return " ".join(filter(None, ("python -m dlframe", name, self.usage)))

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(self.module)


TRAIN = "train"
"""The command that may go unnamed."""

COMMANDS = {
    command.name: command
    for command in (
        Command(TRAIN, "[KEY=VALUE ...]", "train, test and save a run", "dlframe.jobs.train", trains=True),
        Command("-m", "KEY=VALUE,VALUE ...", "run a grid: every combination of values", "dlframe.studies.grid", trains=True),
        Command(
            "sweep",
            "KEY=choice(A,B) ...",
            "search for the best options; can be continued",
            "dlframe.studies.sweep",
            trains=True,
        ),
        Command(
            "compare",
            "RUN ... | KEY=VALUE,VALUE ...",
            "say whether models differ: means with intervals, tests",
            "dlframe.comparisons.compare",
        ),
        Command(
            "plan",
            "RUN ... | KEY=VALUE,VALUE ...",
            "tell the seeds, examples and hours that show a difference",
            "dlframe.comparisons.plan",
        ),
        Command("reproduce", "RUN", "train a run again from its record, and compare", "dlframe.comparisons.reproduce"),
        Command("test", "RUN [KEY=VALUE ...]", "evaluate a finished run again from its directory", "dlframe.jobs.evaluate"),
        Command("figures", "RUN ...", "draw the figures of runs from their directories", "dlframe.jobs.figures"),
        Command("predict", "RUN INPUT ...", "predict for files, folders or arrays", "dlframe.serving.predict"),
        Command(
            "verify-resume",
            "[KEY=VALUE ...]",
            "check that killed and resumed training is bitwise identical",
            "dlframe.jobs.verify_resume",
            trains=True,
        ),
        Command(
            "config",
            "[KEY=VALUE ...]",
            "print the composed config as YAML",
            "dlframe.inspection.config",
            trains=True,
        ),
        Command("list", "[GROUP ...]", "list components and their origin", "dlframe.inspection.listing"),
        Command("show", "GROUP=NAME", "show the options of a component: type, range, default", "dlframe.inspection.show"),
        Command("completion", "bash | zsh | fish", "print the script that completes commands", "dlframe.cli.completion"),
        Command("ui", "[KEY=VALUE ...]", "serve the MLflow pages of the runs in this directory", "dlframe.tracking.ui"),
        Command("sync", "[RUN ...]", "upload pending records of these runs, or of all", "dlframe.tracking.sync"),
        Command("help", "[COMMAND]", "explain a command and its options, as COMMAND --help does", "dlframe.cli.help"),
    )
}
"""Name -> command, in the order in which help lists them."""


def words() -> list[str]:
    """Return the names that are words, not flags."""
    return [name for name in COMMANDS if not name.startswith("-")]
