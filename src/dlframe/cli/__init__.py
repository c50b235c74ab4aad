"""Command line: arguments to a command, errors to an exit status. Imports nothing heavy before the config is checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dlframe.cli.commands import COMMANDS, Command
from dlframe.cli.help import command_help, general_help
from dlframe.runs.environment import is_main
from dlframe.runs.signals import RunInterrupted
from dlframe.types import ConfigError, DlframeError, nearest

HELP = ("-h", "--help", "help")
MULTIRUN = ("-m", "--multirun")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command: exit status 0, 1 if a job of a grid failed, 2 for an invalid request, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except DlframeError as error:
        if os.environ.get("DLFRAME_DEBUG") == "1":
            raise
        if is_main() or isinstance(error, ConfigError):
            print("error:", str(error).replace("\n", "\\n"), file=sys.stderr)
        return 2
    except MemoryError:
        print("error: out of memory. Try smaller data, such as data.size, or a machine with more.", file=sys.stderr)
        return 2
    except RunInterrupted as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _run(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments) or arguments[:1] == ["help"]:
        words = [text for text in arguments if text not in HELP and "=" not in text]
        print(command_help(_command(words)) if words else general_help(), end="")
        return 0
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed. Try: cd ..") from None
    is_grid = bool({*MULTIRUN} & set(arguments))
    arguments = [text for text in arguments if text not in MULTIRUN]
    for text in arguments:
        if text.startswith("-"):
            raise ConfigError(f"{text}: no such flag. Options are key=value; flags are -m, --multirun and --help.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{os.fsencode(text)!r}: must be UTF-8.") from None
    command = COMMANDS["train"]
    if arguments and "=" not in arguments[0]:
        command = _command(arguments[:1])
        arguments = arguments[1:]
    if is_grid and command.name != "train":
        raise ConfigError(f"-m: only for training. Received: {command.name}.")
    return (COMMANDS["-m"] if is_grid else command).run(arguments)


def _command(words: Sequence[str]) -> Command:
    """The command that the first word chooses."""
    name = "-m" if words[0] in MULTIRUN else words[0]
    if name not in COMMANDS:
        known = [known for known in COMMANDS if known.isidentifier() or "-" in known[1:]]
        raise ConfigError(f"{name!r}: must be key=value or a command.{nearest(name, known)} See: python -m dlframe --help")
    return COMMANDS[name]
