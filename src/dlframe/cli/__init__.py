"""The command line: which command is meant, and what to say to a mistake. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlframe.cli import habits
from dlframe.cli.commands import COMMANDS, TRAIN, Command, words
from dlframe.runs.environment import is_main, leave_current_folder, rank, versions
from dlframe.runs.signals import RunInterrupted
from dlframe.storage.private import keep_kernels_private
from dlframe.types import ConfigError, DlframeError, command_line, nearest, no_room, printable, say

FLAGS = {"-h": "help", "--help": "help", "-m": "-m", "--multirun": "-m"}
"""Flag -> its command. A flag may stand anywhere."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0, 1 if a job of a grid failed, 2 for a mistake in what was asked, 130 for Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    trains = True
    try:
        if [*given] == ["--version"]:
            say(f"dlframe {versions()['dlframe'] or 'from source'}")
            return 0
        if arguments is None:  # a process of its own
            _begin()
        command, rest = parse(given)
        trains = command.trains
        if trains:
            keep_kernels_private()  # before a plugin imports torch
        return command.load().main(rest)
    except DlframeError as error:
        if os.environ.get("DLFRAME_DEBUG") == "1":
            raise
        said = str(error)
        if trains and isinstance(error, ConfigError) and error.key and (other := habits.meant(error.key, given)):
            said = re.split(" (?:Did you mean|Choose from|See|Try):?", said)[0] + f" Try: {other}"
        say(f"error: {said}" if is_main() else f"error: process {rank()}: {said}", error=True)
        return 2
    except MemoryError:
        say("error: out of memory. Try smaller data, such as data.size, or a machine with more.", error=True)
        return 2
    except RunInterrupted as stopped:
        return 128 + stopped.number
    except KeyboardInterrupt:
        say("interrupted", error=True)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:
        if not (why := no_room(error)):
            raise
        where = f"{error.filename}: cannot" if error.filename else "files cannot"
        say(f"error: {where} be written: {why}. Make room, and try again", error=True)
        return 2


def _begin() -> None:
    """Prepare the process of a command."""
    leave_current_folder()
    warnings.formatwarning = lambda message, category, filename, lineno, line=None: (
        f"{printable(f'{filename}:{lineno}: {category.__name__}: {message}')}\n"
    )
    sys.excepthook = _tell_of_bug


def _tell_of_bug(*error: Any) -> None:
    import traceback

    say(*"".join(traceback.format_exception(*error)).splitlines(), error=True)


def parse(arguments: Sequence[str]) -> tuple[Command, list[str]]:
    """The command that is meant, and its arguments. Whether these are right is the command's to say.

    Raises:
        ConfigError: There is no such command or flag, or a flag of another command.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder has been removed. Try: cd ..") from None
    arguments = _as_command(arguments)
    for place in range(len(arguments)):
        if answer := habits.flag(place, arguments):
            raise ConfigError(answer)
    flags = {FLAGS[argument] for argument in arguments if argument in FLAGS}
    rest = [argument for argument in arguments if argument not in FLAGS]
    for word in rest:
        _check_word(word)
    rest = [os.path.expanduser(word) if word.startswith("~/") else word for word in rest]  # in quotes no shell does
    name = rest.pop(0) if rest and "=" not in rest[0] else None
    if name is not None and name not in COMMANDS:
        hint = _as_option(name) or nearest(name, words())
        raise ConfigError(f"{name!r}: must be key=value or a command.{hint} See: python -m dlframe --help", name)
    if "-m" in flags and name == "help":
        rest.append("-m")
    elif "-m" in flags:
        if name not in (None, TRAIN):
            raise ConfigError(f"-m: is for training only. Received: {name}. Try: {command_line(name, *rest)}")
        name = "-m"
    if "help" in flags and name != "help":
        # Of a command that is typed already, only the help is wanted, whatever follows.
        return COMMANDS["help"], [name or TRAIN] if name or rest else []
    command = COMMANDS[name or TRAIN]
    for word in rest if command.trains else ():
        if word in COMMANDS:
            raise ConfigError(f"{word}: a command comes first. See: {command_line(word, '--help')}")
    return command, rest


def _as_command(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the command that Hydra's `--cfg job` stands for; what `--resolve` asks for is always done."""
    rest = [word for word in arguments if word not in ("--resolve", "--cfg=job")]
    if "--cfg" in rest:
        place = rest.index("--cfg")
        if rest[place + 1 : place + 2] != ["job"]:
            raise ConfigError("--cfg: must be job. Try: python -m dlframe config")
        del rest[place : place + 2]
    elif "--cfg=job" not in arguments:
        return [*arguments]
    if "--package" in rest and (named := rest[(place := rest.index("--package")) + 1 :]):
        rest[place : place + 2] = [f"package={named[0]}"]
    return ["config", *(re.sub("^--package=", "package=", word) for word in rest)]


def _check_word(word: str) -> None:
    """Refuse a flag that there is not, and what no terminal can show."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{os.fsencode(word)!r}: must be UTF-8.") from None
    if word.startswith("-") and word != "-":  # which means standard input
        flag, equals, value = word.partition("=")
        option = word.lstrip("-")
        if flag in FLAGS:
            hint = f" Try: {flag} {value}"
        else:
            hint = f" Try: {option}" if equals and _as_option(option.partition("=")[0]) else _as_option(option)
            hint = hint or nearest(flag, FLAGS)
        raise ConfigError(f"{word}: no such flag; options are key=value.{hint}")


def _as_option(word: str) -> str:
    """How a word is typed that is the key of an option; empty where it is none."""
    from dlframe.config.choices import known_keys

    return f" Try: {word}=..." if word.split(".")[0] in known_keys() else ""
