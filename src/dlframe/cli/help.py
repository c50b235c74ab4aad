"""Help, generated from the table of commands and the signatures of their options."""

from __future__ import annotations

import textwrap

from dlframe.cli.commands import COMMANDS, Command
from dlframe.config.settings import settings
from dlframe.registry import CHOICES, GROUPS

EXAMPLES = """\
Choices  {choices}
         model=rnn  optimizer=sgd  augmentation=[flip,crop]  trainer=gpu  experiment=...
Options  model.width=64  optimizer.lr=0.01  augmentation.crop.padding=2
Run      {run}
Help     python -m dlframe COMMAND --help; python -m dlframe list; python -m dlframe show model=cnn
Folders  ./conf and ./plugins of the current directory are read beside the built-ins.
"""


def general_help() -> str:
    """Return the commands, and the kinds of keys."""
    width = max(len(command.line) for command in COMMANDS.values()) + 2
    lines = [f"{command.line:<{width}}{command.summary}" for command in COMMANDS.values()]
    choices = " ".join((*GROUPS, *CHOICES))
    run = textwrap.fill(" ".join(settings.get("run").parameters), 110, subsequent_indent=" " * 9)
    return "\n".join(["dlframe: config-driven deep learning", "", *lines, "", EXAMPLES.format(choices=choices, run=run)])


def command_help(command: Command) -> str:
    """Return the usage of a command and its options: type, range, default, meaning."""
    from dlframe.inspection.show import option_lines

    lines = [command.line, "", textwrap.fill(f"{command.summary[0].upper()}{command.summary[1:]}.", 100), ""]
    if command.options:
        lines += ["Options", *option_lines(settings.get(command.options)), ""]
    if command.options == "run":
        lines += [
            f"Groups   {' '.join((*GROUPS, *CHOICES, 'checkpoint'))}",
            "         python -m dlframe list; show model=cnn",
            "",
        ]
    if command.name in ("list", "show"):
        lines += ["  plugin_paths: plugins beside ./plugins and the installed ones", ""]
    return "\n".join(lines)
