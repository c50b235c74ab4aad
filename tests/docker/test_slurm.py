"""slurm.sh under a real SLURM: one controller and one node on loopback. What it starts here is a stand-in for dlframe."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import until
from tests.docker.files import DOCKER
from tests.services import free_port

pytestmark = pytest.mark.slow

PROGRAMS = ("/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/bin/sbatch")
if not all(map(os.path.exists, PROGRAMS)) or os.getuid() != 0:
    pytest.skip("no SLURM, or not root, whom its daemons need: apt-get install slurm-wlm", allow_module_level=True)

SETTINGS = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
SchedulerParameters=batch_sched_delay=1,sched_interval=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8192 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

DLFRAME = """#!/bin/bash
echo "$SLURM_ARRAY_TASK_ID $OMP_NUM_THREADS" "$@" >> "$PWD/calls"
[ -e stay ] || exit "$(cat status)"
trap 'rm stay; exit 143' TERM
touch waiting
while :; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    settings = folder / "slurm.conf"
    settings.write_text(SETTINGS.format(folder=folder, controller=free_port(), node=free_port(), cores=os.cpu_count()))
    daemons = []
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("SLURM_CONF", str(settings))
        for command in (["/usr/sbin/slurmctld", "-D"], ["/usr/sbin/slurmd", "-D", "-N", "localhost"]):
            started = subprocess.Popen([*command, "-f", settings], stdout=log, stderr=log, start_new_session=True)
            daemons.append(started)
        until(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True, check=False).stdout)
        yield
        subprocess.run(["scancel", "--user=root"], check=False)
        for daemon in daemons[::-1]:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


@pytest.fixture
def folder(slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sbatch is called: a virtual environment with the stand-in."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "dlframe").write_text(DLFRAME)
    (programs / "dlframe").chmod(0o755)
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (tmp_path / "status").write_text("0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def submit(*options: str) -> str:
    """The number of the job. What a test asks for fits this machine."""
    small = ["--parsable", "--mem=100M", "--cpus-per-task=1", *options]
    done = subprocess.run(["sbatch", *small, DOCKER / "slurm.sh"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def state(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout


def calls(folder: Path) -> list[str]:
    return sorted((folder / "calls").read_text().splitlines()) if (folder / "calls").exists() else []


def test_sbatch_accepts_every_option(folder: Path) -> None:
    done = subprocess.run(
        ["sbatch", "--test-only", f"--cpus-per-task={min(4, os.cpu_count() or 1)}", DOCKER / "slurm.sh"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_job_of_the_array_works_on_the_same_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE", "postgresql://a@b/c")
    job = submit("--array=1-2")
    until(lambda: len(calls(folder)) == 2, 120)
    words = "sweep model=cnn optimizer.lr=tag(log,interval(1e-4,1e-1)) trials=500 storage=postgresql://a@b/c"
    assert calls(folder) == [f"{i} 1 {words} tracking=server tracking.uri=http://mlflow:5000" for i in (1, 2)]
    until(lambda: state(job).count("COMPLETED") == 2, 60)


def test_a_job_whose_time_is_up_is_queued_again(folder: Path) -> None:
    """SLURM's SIGTERM reaches the step, as here by scancel; the second start of the same job ends."""
    (folder / "stay").touch()
    job = submit("--array=1")
    until(lambda: (folder / "waiting").exists(), 120)
    subprocess.run(["scancel", "--signal=TERM", f"{job}_1"], check=True)
    until(lambda: "Requeue=1 Restarts=1" in state(job), 60)
    # SLURM waits for two minutes, until nothing is left of the first start.
    until(lambda: "JobState=COMPLETED" in state(job), 240)
    assert len(calls(folder)) == 2
    assert calls(folder)[0] == calls(folder)[1]


def test_a_job_that_fails_is_not_queued_again(folder: Path) -> None:
    (folder / "status").write_text("2")
    job = submit("--array=1")
    until(lambda: "JobState=FAILED" in state(job), 120)
    assert "Restarts=0" in state(job)
    assert "ExitCode=2:0" in state(job)
