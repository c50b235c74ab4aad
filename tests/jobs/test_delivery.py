"""A run that has ended says its result first, and is delivered by whoever asks for it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlframe.cli import main
from dlframe.tracking import Tracker

COMMAND = ["model=mlp", "epochs=1", "trainer.limit_batches=2", "figures=none", "resume=auto"]


class Waiting:
    """A tracker that delivers nothing, and ends as the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: BaseException | None = None

    def wait(self) -> str:
        print("waits")
        if self.error:
            raise self.error
        return "not uploaded"


def test_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, no_figures: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    started: list[Waiting] = []

    def start(folder: Path, **_: Any) -> Waiting:
        started.append(Waiting(folder))
        started[-1].error = SystemExit(143) if len(started) == 1 else None  # as of SIGTERM
        return started[-1]

    monkeypatch.setattr(Tracker, "start", start)
    with pytest.raises(SystemExit):
        main(COMMAND)
    out = capsys.readouterr().out
    assert "; experiment team (MLFLOW_EXPERIMENT_NAME)" in out.splitlines()[0]
    result, waits = out.index("test accuracy"), out.index("waits")
    assert result < waits

    assert main(COMMAND) == 0
    said = capsys.readouterr()
    assert [tracker.folder.name for tracker in started] == [started[0].folder.name] * 2, "MLflow lacks the run"
    assert said.out.index("test accuracy") < said.out.index("waits")
    assert said.err.splitlines()[-1] == "not uploaded"
    assert main([*COMMAND, "tracking=none"]) == 0
    assert len(started) == 2
