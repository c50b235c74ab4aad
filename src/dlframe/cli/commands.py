"""The table of commands: each a row here, a module with `main(arguments) -> exit status`, and a set of options."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from dlframe.config.settings import settings


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: Word that chooses it; "-m" is a flag.
        usage: What follows the name.
        summary: What it does.
        module: Module that runs it, imported when it is chosen.
    """

    name: str
    usage: str
    summary: str
    module: str

    @property
    def line(self) -> str:
        """What one types."""
        name = "" if self.name == "train" else self.name
        return " ".join(filter(None, ("python -m dlframe", name, self.usage)))

    @property
    def options(self) -> str:
        """Name of its set of options; empty if it has none of its own."""
        name = "run" if self.name in ("train", "-m") else self.name.replace("-", "_")
        return name if name in settings.entries else ""

    def run(self, arguments: Sequence[str]) -> int:
        """Run the command: its exit status."""
        return importlib.import_module(self.module).main(arguments)


COMMANDS = {
    command.name: command
    for command in (
        Command("train", "[KEY=VALUE ...]", "train, test and save a run", "dlframe.jobs.train"),
        Command("-m", "KEY=VALUE,VALUE ...", "run a grid: every combination of values", "dlframe.jobs.grid"),
        Command("test", "RUN [KEY=VALUE ...]", "evaluate a finished run again from its directory", "dlframe.jobs.evaluate"),
        Command("predict", "RUN INPUT ...", "predict for files, folders or arrays", "dlframe.serving.predict"),
        Command(
            "verify-resume",
            "[KEY=VALUE ...]",
            "check that killed and resumed training is bitwise identical",
            "dlframe.jobs.verify_resume",
        ),
        Command("list", "[GROUP ...]", "list components and their origin", "dlframe.inspection.listing"),
        Command("show", "GROUP=NAME", "show the options of a component: type, range, default", "dlframe.inspection.show"),
        Command("ui", "[KEY=VALUE ...]", "serve the MLflow pages of the runs in this directory", "dlframe.tracking.ui"),
        Command("sync", "[RUN ...]", "upload pending records of these runs, or of all", "dlframe.tracking.sync"),
    )
}
"""Name -> command, in the order in which help lists them."""
