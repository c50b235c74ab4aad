"""Workers as tasks of a real Ray cluster of two nodes on loopback addresses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import until
from tests.services import RayNodes, short_folder

from dlframe.runs import journal
from dlframe.studies.study import Study, read_manifest

pytestmark = pytest.mark.slow

if not importlib.util.find_spec("ray"):
    pytest.skip("no Ray: pip install 'dlframe[ray]'", allow_module_level=True)

SECOND = "127.0.0.3"
SWEEP = ["sweep", "model=mlp", "model.depth=4", "epochs=60", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"]
SWEEP += ["tracking=none", "name=try", "search.fresh_seeds=0", "sampler=random", "optimizer.lr=tag(log,interval(1e-3,1e-1))"]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    with short_folder() as folder:
        nodes = RayNodes(folder, tmp_path / "ray.log")
        try:
            nodes.start(RayNodes.HEAD, cpus=1)
            nodes.wait(1)
            nodes.start(SECOND, cpus=1)
            nodes.wait(2)
            yield nodes
        finally:
            nodes.close()


def started(nodes: RayNodes, folder: Path, trials: int) -> subprocess.Popen:
    options = [*SWEEP, f"trials={trials}", "workers=2", "executor=ray", f"executor.address={nodes.address}"]
    command = [sys.executable, "-m", "dlframe", *options]
    return subprocess.Popen(
        command, cwd=folder, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_trial_of_a_lost_node_goes_on_elsewhere(nodes, tmp_path):
    sweep = started(nodes, tmp_path, 3)
    for number in (0, 1):
        until(lambda n=number: [*tmp_path.glob(f"runs/try-{n:04d}/checkpoints/state-*")], 200)
    nodes.kill(SECOND)
    said, errors = sweep.communicate(timeout=400)
    assert sweep.returncode == 0, said + errors
    folder = tmp_path / "runs" / "sweeps" / "try"
    trials = Study(folder, read_manifest(folder)).trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    runs = [tmp_path / "runs" / f"try-{number:04d}" for number in range(3)]
    assert all(len(journal.history(run)["val/accuracy"]) == 60 for run in runs)
    assert max(sum(r["kind"] == "start" for r in journal.read(run)) for run in runs) == 2, "none was continued"


def test_a_cluster_that_dies_is_told_in_one_line(nodes, tmp_path):
    sweep = started(nodes, tmp_path, 50)
    until(lambda: [*tmp_path.glob("runs/try-0000/checkpoints/state-*")], 200)
    for address in (SECOND, RayNodes.HEAD):
        nodes.kill(address)
    _, errors = sweep.communicate(timeout=100)
    assert sweep.returncode == 2
    assert "error: executor.address: the Ray cluster is gone" in errors
    assert "Traceback" not in errors
