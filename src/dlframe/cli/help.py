"""Command `help [COMMAND]`, generated from the table of commands, their docstrings and the signatures of their options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from dlframe.cli.commands import COMMANDS, TRAIN, Command, words
from dlframe.config import OPTIONS, names
from dlframe.config.settings import option_set, settings
from dlframe.inspection.show import option_lines, wrapped
from dlframe.registry import CHOICES, GROUPS, REGISTRIES, STUDY_CHOICES, plugins
from dlframe.types import ConfigError, command_line, nearest, say

EXAMPLES = """\
Choices  {choices}
         model=rnn  optimizer=sgd  augmentation=[flip,crop]  trainer=gpu  experiment=...
Options  model.width=64  optimizer.lr=0.01  augmentation.crop.padding=2
Run      {run}
Help     python -m dlframe COMMAND --help; python -m dlframe list; python -m dlframe show model=cnn
Folders  ./conf and ./plugins of the current directory are read beside the built-ins.
"""


def main(arguments: Sequence[str]) -> int:
    """Explain a command: usage, what it does, its options. Without a command, list all of them.

    Raises:
        ConfigError: There is no such command.
    """
    if len(arguments) > 1:
        received = " ".join(arguments)
        raise ConfigError(f"help: must be one command. Received: {received}. Try: {command_line('help', arguments[0])}")
    for name in arguments:
        if name not in COMMANDS:
            is_choice = name.partition("=")[0] in (*REGISTRIES, *CHOICES, *STUDY_CHOICES) and "=" in name
            hint = (
                f" Try: {command_line('show', name)}"
                if is_choice
                else f"{nearest(name, words())} See: python -m dlframe --help"
            )
            raise ConfigError(f"help: must be a command. Received: {name!r}.{hint}")
    say(*(command_help(COMMANDS[arguments[0]]) if arguments else general_help().split("\n")))
    return 0


def general_help() -> str:
    """Return the commands, and the kinds of keys. No module of a command is imported for it."""
    width = max(len(command.line) for command in COMMANDS.values()) + 2
    lines = [
        line
        for command in COMMANDS.values()
        for line in wrapped(command.summary, f"{command.line:<{width}}", width if width < 60 else 8)
    ]
    choices = " ".join((*GROUPS, *CHOICES))
    run = " ".join(settings.get("run").parameters)
    examples = EXAMPLES.format(choices=choices, run=run).split("\n")
    examples = [part for line in examples for part in wrapped(line[9:], line[:9], 9, 110)]
    return "\n".join(["dlframe: config-driven deep learning", "", *lines, "", *examples]).rstrip()


def command_help(command: Command) -> Iterator[str]:
    """Yield the lines that explain a command: usage, what it does, its options with type, range, default and meaning."""
    module = command.load()
    yield command.line
    yield ""
    yield from _prose(inspect.getdoc(module.main) or "")
    if options := getattr(module, "Options", None):
        yield ""
        yield "Options"
        yield from option_lines(option_set(command.name, options))
    for prefix, options in getattr(module, "SECTIONS", {}).items():
        yield ""
        yield f"Options {prefix}*"
        yield from option_lines(option_set(prefix, options))
    if not command.trains:
        return
    yield ""
    if command.name != TRAIN:
        yield f"All options of a run as well: python -m dlframe {TRAIN} --help"
        return
    plugins.discover()
    yield "Groups"
    for group in (*GROUPS, *CHOICES):
        yield from wrapped(", ".join(sorted(names(group))), f"  {group:<14}", 16, 110)
    yield ""
    yield "python -m dlframe show GROUP=NAME explains the options of one."
    yield f"python -m dlframe show {OPTIONS[0]} (or {', '.join(OPTIONS[1:])}) explains those that belong to no component."


def _prose(doc: str) -> Iterator[str]:
    """Yield a docstring without its sections, which are for callers of the function."""
    paragraphs = [text for text in doc.split("\n\n") if text.split("\n")[0] not in ("Args:", "Returns:", "Raises:")]
    for number, text in enumerate(paragraphs):
        yield from [""] * (number > 0)
        yield from wrapped(" ".join(text.split()), most=110)
