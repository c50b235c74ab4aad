"""The table of commands: a row and its module are all that a command needs."""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from tests import forked

from dlframe.cli import main, parse
from dlframe.cli.commands import COMMANDS, Command
from dlframe.config import load
from dlframe.config.settings import option_set, settings
from dlframe.registry import GROUPS, Count, plugins

plugins.discover()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_row_has_a_module_that_explains_itself(command):
    module = command.load()
    (arguments,) = inspect.signature(module.main).parameters
    assert (arguments, module.main.__annotations__["return"]) == ("arguments", "int")
    summary = inspect.getdoc(module.main).split("\n")[0]
    assert summary.endswith((".", ":"))
    assert command.summary[0].islower()
    assert not command.summary.endswith(".")
    for option in option_set(command.name, module.Options).parameters.values() if hasattr(module, "Options") else ():
        assert option.doc.endswith("."), option.name


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_usage_line_is_understood(command):
    typed = command.line.removeprefix("python -m dlframe").translate(str.maketrans("", "", "[].")).split()
    assert parse(typed) == (command, [word for word in typed if word != command.name])


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_command_group_and_option_of_a_run(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for command in COMMANDS.values():
        assert f"\n{command.line}  " in out
        assert f"  {command.summary}\n" in out
    assert {*GROUPS, *settings.get("run").parameters} <= set(out.split())


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_explains_its_options_without_torch(command, tmp_path):
    answer = forked.dlframe(command.name, "--help", cwd=tmp_path)
    if command.name == "help":  # the same as --help
        assert answer == forked.dlframe("--help", cwd=tmp_path)
        return
    assert (answer.code, answer.error, answer.torch) == (0, "", False)
    assert answer.out.startswith(f"{command.line}\n\n")
    assert answer == forked.dlframe("help", command.name, cwd=tmp_path)
    options = getattr(command.load(), "Options", None)
    for option in option_set(command.name, options).parameters.values() if options else ():
        assert f"\n  {option.name}: {option.rule}; default " in answer.out
        assert option.doc in " ".join(answer.out.split())
    assert ("train --help" in answer.out) == (command.trains and command.name != "train")


def test_help_of_training_names_every_component(capsys):
    assert main(["--help", "train"]) == 0
    words = capsys.readouterr().out.replace(",", "").split()
    assert {*GROUPS, *(entry.name for registry in GROUPS.values() for entry in registry if entry.group != "task")} <= set(words)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("model=nope --help", "train"),
        ("-m -h", "-m"),
        ("help -m", "-m"),
        ("test runs/x -h", "test"),
        ("train -m --help", "-m"),
    ],
)
def test_help_is_for_the_command_that_is_typed(capsys, line, name):
    assert main(line.split()) == 0
    assert capsys.readouterr().out.startswith(f"{COMMANDS[name].line}\n")


def test_the_table_loads_no_command():
    code = "import sys, dlframe.cli; from dlframe.cli.commands import COMMANDS\n"
    code += "print(*({command.module for command in COMMANDS.values()} & set(sys.modules)))"
    assert forked.subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_row_is_all_that_a_command_needs(capsys, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Options of `count`.

        Args:
            times: How often one counts.
        """

        times: Count = 2

    def count(arguments: Sequence[str]) -> int:
        """Count what is named.

        Returns:
            The exit status.
        """
        from dlframe.config import load_options

        print(
            json.dumps(
                {field.name: getattr(load_options("count", Options, arguments), field.name) for field in fields(Options)}
            )
        )
        return 3

    module = types.ModuleType("counting")
    vars(module).update(main=count, Options=Options)
    monkeypatch.setitem(sys.modules, "counting", module)
    monkeypatch.setitem(COMMANDS, "count", Command("count", "[times=3]", "count what is named", "counting"))

    def said(*arguments: str) -> tuple[int, str, str]:
        return main(arguments), *capsys.readouterr()

    assert said("count", "times=5") == (3, '{"times": 5}\n', "")
    assert "python -m dlframe count [times=3]" in said("--help")[1]
    assert said("count", "--help")[1] == (
        "python -m dlframe count [times=3]\n\nCount what is named.\n\n"
        "Options\n  times: int >= 1; default 2\n      How often one counts.\n"
    )
    assert (
        said("coutn")[2]
        == "error: 'coutn': must be key=value or a command. Did you mean 'count'? See: python -m dlframe --help\n"
    )
    assert (
        said("count", "time=5")[2] == "error: time: no such option. Did you mean 'times'? See: python -m dlframe count --help\n"
    )


def test_the_config_of_a_command_line_is_printed_and_read_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = ["model=mlp", "augmentation=[flip]", "run_name=1e3", "trainer=debug"]
    found = []
    for line in (["config", *overrides], ["--cfg", "job", *overrides, "--resolve"], [*overrides, "--cfg=job"]):
        assert main(line) == 0
        found.append(capsys.readouterr().out)
    assert len({*found}) == 1
    Path("mine.yaml").write_text(found[0])
    assert load(["experiment=mine.yaml"]).values == load(overrides).values
    assert not Path("runs").exists()
    assert main(["--cfg", "hydra"]) == 2
    assert capsys.readouterr().err == "error: --cfg: must be job. Try: python -m dlframe config\n"


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dlframe ")
