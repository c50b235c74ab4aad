"""Where trials are kept: a journal that may be damaged, and a PostgreSQL server that may be restarted, refuse, or be gone."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.conftest import dlframe, until
from tests.services import PostgreSQL, free_port, postgresql, short_folder

from dlframe.runs import journal
from dlframe.storage import trials
from dlframe.types import ConfigError

PASSWORD = "a password of the tests"
SLOW = ["model=mlp", "model.depth=4", "epochs=60", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"]
SWEEP = ["sweep", *SLOW, "tracking=none", "name=try", "search.fresh_seeds=0", "model.width=choice(4,8)", "sampler=random"]
SPACE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"

needs_server = pytest.mark.skipif(not postgresql("initdb"), reason="no PostgreSQL: apt-get install postgresql")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with short_folder() as folder:
        server = PostgreSQL(folder, PASSWORD, tmp_path_factory.mktemp("log") / "postgres.log")
        server.start()
        server.wait()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", PASSWORD)
            yield server
        server.stop()


def database(server: PostgreSQL, name: str) -> str:
    """The address of a new database."""
    with query(server, "postgres") as connection:
        connection.execute(f'create database "{name}"')
    return f"postgresql://postgres@127.0.0.1:{server.port}/{name}"


def query(server: PostgreSQL, name: str):
    import psycopg

    address = f"postgresql://postgres@127.0.0.1:{server.port}/{name}"
    return contextlib.closing(psycopg.connect(address, password=PASSWORD, autocommit=True))


def started(cwd: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dlframe", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check_whole(folder: Path, server: PostgreSQL, name: str, count: int) -> None:
    """Every trial is complete, and each run has one sequence of epochs."""
    with query(server, name) as connection:
        rows = connection.execute("select number, state from trials order by number").fetchall()
    assert rows == [(number, "COMPLETE") for number in range(count)]
    for number in range(count):
        run = folder / "runs" / f"try-{number:04d}"
        assert len(journal.history(run)["val/accuracy"]) == 60
        kinds = Counter(record["kind"] for record in journal.read(run))
        assert kinds["ended"] <= 1, "it was run twice"
    assert len([*(folder / "runs").glob("try-*")]) == count


@needs_server
def test_claims_are_of_one_process_and_are_kept_over_a_restart(server, monkeypatch):
    monkeypatch.setattr(trials, "SETTLE_SECONDS", 2)
    address = database(server, "claims")
    first, second = both = [trials.PostgreSQL(address, "study") for _ in range(2)]
    assert first.take(0)
    assert not second.take(0)
    with first.alone():
        number = first.optuna.create_new_study([_minimize()], "study")
    server.stop()
    server.start()
    server.wait()
    assert not second.take(0), "the first one had not come back yet"
    assert second.optuna.create_new_trial(number) == 1
    assert not first.is_lost(0)
    first.release(0)
    assert second.take(0)
    with second._mutex, query(server, "claims") as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [second.token])
        until(lambda: first.take(0), 20)
    until(lambda: second.is_lost(0), 20)
    assert not first.is_lost(0)
    for storage in both:
        storage.close()


def _minimize():
    from optuna.study import StudyDirection

    return StudyDirection.MINIMIZE


@needs_server
@pytest.mark.parametrize("problem", ["password", "database", "user", "version", "unreachable"])
def test_a_server_that_cannot_be_used_is_told_in_one_line(server, tmp_path, monkeypatch, problem):
    from dlframe.storage.trials import open_storage

    address = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    rule = "storage: cannot be used: "
    if problem == "password":
        monkeypatch.setenv("PGPASSWORD", "wrong")
        rule += r".*password authentication failed"
    elif problem == "database":
        address = f"postgresql://postgres@127.0.0.1:{server.port}/absent"
        rule += r'.*database "absent" does not exist'
    elif problem == "user":
        address = f"postgresql://nobody@127.0.0.1:{server.port}/postgres"
        rule += r".*password authentication failed for user"
    elif problem == "unreachable":
        address = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
        rule += r".*[Cc]onnection refused"
    else:
        address = database(server, "version")
        trials.PostgreSQL(address, "x").close()
        with query(server, "version") as connection:
            connection.execute("update alembic_version set version_num = 'v9.9.9.a'")
        rule = r"storage: its tables are of another Optuna: must be of version v\S+\. Received: v9\.9\.9\.a\.$"
    with pytest.raises(ConfigError, match=rule) as error:
        open_storage(address, tmp_path)
    assert "\n" not in str(error.value)


@needs_server
@pytest.mark.slow
def test_a_restart_of_the_server_interrupts_no_trial(server, tmp_path):
    address = database(server, "restart")
    sweep = started(tmp_path, *SWEEP, SPACE, "trials=4", "workers=2", f"storage={address}")
    for number in (0, 1):
        until(lambda n=number: [*tmp_path.glob(f"runs/try-{n:04d}/checkpoints/state-*")], 120)
    server.stop()
    time.sleep(3)
    server.start()
    said, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, said
    check_whole(tmp_path, server, "restart", 4)


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker", "both"])
def test_a_kill_loses_no_trial(server, tmp_path, victim):
    address = database(server, f"kill-{victim}")
    options = [*SWEEP, SPACE, "trials=4", "workers=2", f"storage={address}"]
    sweep = started(tmp_path, *options)
    until(lambda: [*tmp_path.glob("runs/try-0001/checkpoints/state-*")], 120)
    driver = psutil.Process(sweep.pid)
    workers = driver.children()
    victims = {"driver": [driver], "worker": workers[:1], "both": [driver, *workers]}[victim]
    for process in victims:
        process.kill()
    said, _ = sweep.communicate(timeout=300)
    if victim == "worker":
        assert sweep.returncode == 0, said
        assert "was killed (signal 9); started again" in said
    else:
        assert sweep.returncode == -signal.SIGKILL
        done = dlframe(*options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        psutil.wait_procs(workers, 60)
    check_whole(tmp_path, server, f"kill-{victim}", 4)
