"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.forked import dlframe

from dlframe.cli import parse
from dlframe.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_model_of_fifteen_lines_trains(tmp_path, forking):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "linear.py").write_text(code)
    training = forking.start(["model=linear", "model.dropout=0.1", "epochs=1", "tracking=none"], tmp_path)
    assert training.status() == 0, training.said()
    refused = dlframe("model=linear", "model.dropout=1.5", cwd=tmp_path)
    assert refused.error == "error: model.dropout: must be float >= 0 and < 1. Received: 1.5.\n"
    assert "model.dropout: float >= 0 and < 1; default 0" in dlframe("show", "model=linear", cwd=tmp_path).out


def test_the_error_that_it_shows_is_the_error(tmp_path):
    command, message = re.findall(r"^\$ python -m dlframe (.*)\n(error: .*)$", README, re.MULTILINE)[0]
    assert dlframe(command, cwd=tmp_path).error == message + "\n"


LINES = re.findall(r"^python -m dlframe ([^#\n]+?) *(?:#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in LINES if line.split()[0] not in COMMANDS])
def test_every_training_command_is_a_valid_config(line, monkeypatch, tmp_path):
    from dlframe.config import load

    monkeypatch.chdir(tmp_path)
    load(line.split())


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_understood(line):
    command, _ = parse(line.split())
    assert command.name == line.split()[0] or command.name in ("train", "help")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_named(command):
    assert f"python -m dlframe {command}" in README


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_the_conf_folder_travels_in_the_wheel():
    assert 'conf = "dlframe/conf"' in (ROOT / "pyproject.toml").read_text()
