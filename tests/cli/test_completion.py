"""Completion: what the last word may become, and the script in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.cli.completion import candidates


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("rep", ["reproduce"]),
        ("completion z", ["zsh"]),
        ("help verify", ["verify-resume"]),
        ("list sched", ["scheduler"]),
        ("show sched", ["scheduler="]),
        ("show trainer=fs", ["trainer=fsdp"]),
        ("test check", ["checkpoint="]),
        ("config model=cn", ["model=cnn"]),
        ("seed=1 sched", ["scheduler.", "scheduler="]),
        ("model=rnn model.cell_t", ["model.cell_type="]),
        ("model=cnn model.cell_t", []),
        ("model.cell_type=g", ["model.cell_type=gru"]),
        ("trainer.accelerator=t", ["trainer.accelerator=tpu"]),
        ("dry_run=t", ["dry_run=true"]),
        ("augmentation=[flip,cro", ["augmentation=[flip,crop"]),
        ("nope=", []),
        ("nope.a", []),
        ("seed=1 reprod", []),
    ],
)
def test_candidates(typed, found):
    assert sorted(set(candidates(typed.split(" ")))) == found


def test_a_user_s_own_files_are_candidates():
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("seed: 3\n")
    assert [*candidates(["experiment=mi"])] == ["experiment=mine"]


@pytest.mark.parametrize("shell", ["", "bsh", "bash zsh"])
def test_another_shell_is_refused(shell, capsys):
    assert main(["completion", *shell.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: completion: must be one of bash, zsh, fish. Received: ")
    assert said.count("\n") == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "found"),
    [("model=cn", "cnn"), ("list sched", "scheduler"), ("model=cnn trainer.acc", "trainer.accelerator=")],
)
def test_bash_completes(line, found, tmp_path, capsys):
    """As readline calls it: "=" begins a word of its own there."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    program = f"{sys.executable} -m dlframe"
    code = f"compopt() {{ :; }}; source {script}; COMP_LINE='{program} {line}'; COMP_POINT=${{#COMP_LINE}}; "
    code += '_dlframe; printf "%s\\n" "${COMPREPLY[@]}"; complete -p dlframe'
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [found, "complete -o bashdefault -o default -F _dlframe dlframe"]
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("line", "found"), [("model=cn", "model=cnn"), ("list sched", "scheduler")])
def test_fish_completes(line, found, tmp_path, capsys):
    assert main(["completion", "fish"]) == 0
    script = tmp_path / "completion.fish"
    script.write_text(capsys.readouterr().out)
    code = f"source {script}; complete -C '{sys.executable} -m dlframe {line}'"
    done = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert found in done.stdout.splitlines()


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["show", "model"], ["show", "model=cnn"], ["test", "--help"], ["train", "--help"]]
)
@pytest.mark.parametrize("columns", [80, 120])
def test_screens_fit_the_terminal(words, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    own = ("python -m dlframe ", "from ")  # a command is copied whole
    assert max(len(line) for line in lines if not line.lstrip().startswith(own)) <= columns
    assert not any(line.endswith("-") for line in lines)
