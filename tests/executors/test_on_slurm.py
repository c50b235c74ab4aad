"""Workers as jobs of submitit, by its executor for one machine."""

from __future__ import annotations

import builtins
import importlib.util
import subprocess
import sys

import psutil
import pytest
from tests.conftest import dlframe, until

from dlframe.executors.base import Work
from dlframe.executors.on_ray import _ray
from dlframe.executors.on_slurm import Submitit
from dlframe.runs import journal
from dlframe.storage.trials import PostgreSQL
from dlframe.studies.study import Study, read_manifest
from dlframe.types import ConfigError

SWEEP = ["sweep", "model=mlp", "model.depth=4", "epochs=60", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"]
SWEEP += ["tracking=none", "name=try", "search.fresh_seeds=0", "sampler=random", "optimizer.lr=tag(log,interval(1e-3,1e-1))"]
LOCAL = ["executor=submitit", "executor.cluster=local"]

needs_submitit = pytest.mark.skipif(
    not importlib.util.find_spec("submitit"), reason="no submitit: pip install 'dlframe[slurm]'"
)


@pytest.mark.parametrize("package", ["ray", "submitit", "psycopg"])
def test_without_the_package_the_install_line_is_told(tmp_path, monkeypatch, package):
    found = builtins.__import__

    def absent(name: str, *rest, **options):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return found(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    work = Work(
        number=0, workers=1, command=[], run=len, arguments=[], environment={}, folder=tmp_path, log=tmp_path / "worker.log"
    )
    key, extra, ask = {
        "ray": ("executor=ray", "ray", _ray),
        "submitit": ("executor=submitit", "slurm", lambda: Submitit().start([work])),
        "psycopg": ("storage", "postgresql", lambda: PostgreSQL("postgresql://me@127.0.0.1:1/trials", "study")),
    }[package]
    with pytest.raises(ConfigError, match=rf"^{key}: .*requires .* pip install 'dlframe\[{extra}\]'$"):
        ask()


@needs_submitit
@pytest.mark.slow
def test_a_job_that_is_killed_is_started_again(tmp_path):
    options = [*SWEEP, *LOCAL, "trials=3", "workers=2"]
    command = [sys.executable, "-m", "dlframe", *options]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: sweep.poll() is not None or [*tmp_path.glob("runs/try-0000/checkpoints/state-*")], 120)
        assert sweep.poll() is None, sweep.communicate()[0]
    except AssertionError:
        sweep.kill()
        raise
    victims = [p for p in psutil.Process(sweep.pid).children(recursive=True) if "sweep" in p.cmdline()]
    victims[0].kill()
    said, _ = sweep.communicate(timeout=300)
    if sweep.returncode:
        assert "The same command continues" in said
        done = dlframe(*options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "sweeps" / "try"
    trials = Study(folder, read_manifest(folder)).trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert all(len(journal.history(tmp_path / "runs" / f"try-{n:04d}")["val/accuracy"]) == 60 for n in range(3))
