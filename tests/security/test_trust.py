"""What is trusted: what was typed or started by this user. No file, journal or server adds to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.security.conftest import NOBODY, TOKEN, needs_root
from tests.security.hostile import Server

from dlframe.cli import main
from dlframe.config import load
from dlframe.storage.known import is_known, remember
from dlframe.tracking import Tracker, UploadState
from dlframe.tracking.sync import close_interrupted_runs
from dlframe.types import ConfigError

# --- files that name places

CHOICES = ", ".join(
    f"{{{{{choice}}}}}"
    for choice in ("task: image_classification", "optimizer: adamw", "scheduler: one_cycle", "trainer: cpu", "tracking: mlflow")
)
FILES: dict[str, tuple[str, str]] = {
    "an_experiment": ("conf/experiment/x.yaml", "{}"),
    "the_first_config": ("conf/config.yaml", f"defaults: [{CHOICES}, _self_]\n{{}}"),
    "a_preset_of_a_task": ("conf/task/x.yaml", "defaults: [image_classification, _self_]\n{}"),
    "a_plugin": ("plugins/conf/experiment/x.yaml", "{}"),
}
TYPED = {
    "an_experiment": ["experiment=x"],
    "the_first_config": [],
    "a_preset_of_a_task": ["task=x"],
    "a_plugin": ["experiment=x"],
}
PLACES = {
    "a_server": ("tracking.uri", "tracking: {{uri: '{other}'}}"),
    "a_server_on_this_machine": ("tracking.uri", "tracking: {{uri: 'http://127.0.0.1:5000'}}"),
    "a_server_by_a_reference": ("tracking.uri", "experiment_name: '{other}'\ntracking: {{uri: '${{experiment_name}}'}}"),
    "a_database": ("tracking.uri", "tracking: {{uri: 'sqlite:///{outside}/browser.sqlite'}}"),
    "a_database_by_dots": ("tracking.uri", "tracking: {{uri: 'sqlite:///x/../../outside/browser.sqlite'}}"),
    "a_database_by_a_link": ("tracking.uri", "tracking: {{uri: 'sqlite:///link/browser.sqlite'}}"),
    "a_database_by_a_process": ("tracking.uri", "tracking: {{uri: 'sqlite:////proc/self/cwd/../outside/browser.sqlite'}}"),
    "a_database_by_a_uri": ("tracking.uri", "tracking: {{uri: 'sqlite:///file:x.db?uri=true'}}"),
    "another_database": ("tracking.uri", "tracking: {{uri: 'postgresql://127.0.0.1:9/x'}}"),
    "runs": ("runs", "runs: '{outside}'"),
    "runs_by_dots": ("runs", "runs: runs/../../outside"),
    "runs_by_a_link": ("runs", "runs: link/runs"),
    "a_run": ("resume", "resume: '{outside}'"),
    "a_run_here": ("resume", "resume: theirs"),
    "a_run_by_a_link": ("resume", "resume: link"),
}


@pytest.fixture
def place(user: Path, tmp_path: Path, other: Server) -> Callable[..., str]:
    """Write a file that names a place; the key of the place."""
    (tmp_path / "outside").mkdir()
    (user / "link").symlink_to(tmp_path / "outside")
    (user / "theirs").mkdir()

    def write(where: str, what: str) -> str:
        key, content = PLACES[what]
        path, frame = FILES[where]
        file = user / path
        file.parent.mkdir(parents=True)
        file.write_text(frame.replace("{}", content).format(other=other.uri, outside=tmp_path / "outside") + "\n")
        return key

    return write


@pytest.mark.parametrize("where", FILES)
@pytest.mark.parametrize("what", PLACES)
def test_a_file_names_no_place(
    where: str, what: str, place: Callable[..., str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with the file and the command that would do it."""
    if where != "a_plugin":
        monkeypatch.setenv("DLFRAME_PLUGINS", "none")
    key = place(where, what)
    assert main(["model=mlp", *TYPED[where]]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{FILES[where][0]}:" in said
    assert f": {key}: of a file must be a " in said
    assert f" If you trust it: python -m dlframe model=mlp {' '.join([*TYPED[where], key])}=" in said.replace("'", "")
    assert not (tmp_path / "home" / "runs").exists()
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("typed", [[], ["tracking=server"], ["tracking=mine"]])
def test_a_file_does_not_hide_behind_one_of_dlframe(typed: list[str], user: Path, other: Server) -> None:
    (user / "conf" / "tracking").mkdir(parents=True)
    for name in ("server", "mlflow", "mine"):
        (user / "conf" / "tracking" / f"{name}.yaml").write_text(f"uri: {other.uri}\n")
    with pytest.raises(ConfigError, match=r"tracking\.uri: of a file must be a store that you know"):
        load(["model=mlp", *typed])


def test_a_file_of_dlframe_counts_where_it_was_typed(user: Path) -> None:
    assert load(["model=mlp", "tracking=server"]).tracking.uri == "http://127.0.0.1:5000"
    (user / "conf" / "experiment").mkdir(parents=True)
    (user / "conf" / "experiment" / "x.yaml").write_text("defaults: [{override /tracking: server}]\n")
    with pytest.raises(ConfigError, match=r"tracking\.uri: of a file must be a store that you know"):
        load(["model=mlp", "experiment=x"])
    assert load(["model=mlp", "experiment=x", "tracking=none"]).tracking.uri == "none"


@pytest.mark.parametrize("what", ["a_server", "a_database", "runs", "a_run"])
def test_what_was_typed_or_started_may_be_named(what: str, place: Callable[..., str], tmp_path: Path, other: Server) -> None:
    key = place("an_experiment", what)
    value = {"a_server": other.uri, "a_database": f"sqlite:///{tmp_path}/outside/browser.sqlite"}.get(what)
    value = value or str(tmp_path / "outside")
    assert load(["model=mlp", "experiment=x", f"{key}={value}"])
    with pytest.raises(ConfigError):
        load(["model=mlp", "experiment=x"])
    remember(**{{"tracking.uri": "store", "resume": "run"}.get(key, key): value})
    assert load(["model=mlp", "experiment=x"]).typed == {"model", "experiment"}


@pytest.mark.parametrize(
    "content", ["runs: mine", "runs: ./a/../b", "tracking: {uri: 'sqlite:///mine.db'}", "tracking: {uri: none}", "resume: auto"]
)
def test_what_is_in_the_current_folder_may_be_named(content: str, user: Path) -> None:
    (user / "conf" / "experiment").mkdir(parents=True)
    (user / "conf" / "experiment" / "x.yaml").write_text(content + "\n")
    assert load(["model=mlp", "experiment=x"])


def test_what_was_typed_is_remembered_and_what_a_file_says_is_not(user: Path, server: Server) -> None:
    (user / "conf" / "experiment").mkdir(parents=True)
    short = ["model=mlp", "model.width=2", "epochs=1", "trainer.limit_batches=1"]
    (user / "conf" / "experiment" / "x.yaml").write_text("tracking: {uri: 'sqlite:///mine.db'}\n")
    assert main([*short, "experiment=x"]) == 0
    assert not is_known(store=f"sqlite:///{user}/mine.db")
    (folder,) = (path for path in (user / "runs").glob("mlp-*"))
    assert is_known(run=folder)
    assert is_known(run=folder, store=f"sqlite:///{user}/mine.db")
    assert main([*short, f"tracking.uri={server.uri}"]) == 0
    assert is_known(store=server.uri)
    assert main([*short, "experiment=x", "tracking.uri=sqlite:///./a/../theirs.db"]) == 0
    assert is_known(store=f"sqlite:///{user}/theirs.db")


# --- the list


@pytest.mark.parametrize("separator", ["\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\0"])
def test_no_character_makes_a_second_entry(separator: str, other: Server) -> None:
    remember(store=f'http://mine{separator}{{"store": "{other.uri}"}}{separator}{other.uri}')
    assert not is_known(store=other.uri)
    assert not is_known(store="http://mine")


def test_one_kind_of_entry_is_no_other(user: Path) -> None:
    remember(store=str(user))
    remember(run=user, store="http://mine")
    assert not is_known(run=user)
    assert not is_known(runs=user)
    assert not is_known(store="http://mine")


UNSAFE: dict[str, Callable[[Path], Any]] = {
    "writable_by_others": lambda list_: list_.chmod(0o666),
    "in_a_folder_writable_by_others": lambda list_: list_.parent.chmod(0o777),
    "a_link": lambda list_: (list_.rename("list"), list_.symlink_to(Path("list").absolute())),
    "a_pipe": lambda list_: (list_.unlink(), os.mkfifo(list_)),
    "a_folder": lambda list_: (list_.unlink(), list_.mkdir()),
    "gone": lambda list_: shutil.rmtree(list_.parent),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_a_list_that_others_could_write_says_nothing(kind: str, tmp_path: Path) -> None:
    remember(store="http://mine")
    assert is_known(store="http://mine")
    UNSAFE[kind](tmp_path / "state" / "dlframe" / "known.jsonl")
    assert not is_known(store="http://mine")


@pytest.mark.skipif(os.getuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("name", [".", "known.jsonl"])
def test_a_list_of_another_user_says_nothing(name: str, tmp_path: Path) -> None:
    remember(store="http://mine")
    os.chown(tmp_path / "state" / "dlframe" / name, 12345, 12345)
    assert not is_known(store="http://mine")
    assert "must be a file of this user" in remember(store="http://other")


@pytest.mark.parametrize("name", ["stores.txt", "known.json", "known.jsonl.new"])
def test_another_file_says_nothing(name: str, tmp_path: Path) -> None:
    """Nor does the list of an earlier version, which held what files had named."""
    (tmp_path / "state" / "dlframe").mkdir(parents=True, mode=0o700)
    (tmp_path / "state" / "dlframe" / name).write_text('http://mine\n{"store": "http://mine"}\n')
    assert not is_known(store="http://mine")


def test_a_list_in_the_current_folder_says_nothing(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a relative XDG_STATE_HOME would have it."""
    remember(store="http://mine")
    shutil.copytree(Path(os.environ["XDG_STATE_HOME"]), user / "state")
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    assert not is_known(store="http://mine")


# --- runs that name a store

STORES = {
    "a_server": "{other}",
    "a_server_with_a_slash": "{other}/",
    "a_database": "sqlite:///{outside}/x.db",
    "a_database_beside": "sqlite:///{runs}/other.db",
    "a_database_by_dots": "sqlite:///{runs}/../../outside/x.db",
    "a_database_by_a_link": "sqlite:///{runs}/link/mlflow.db",
    "a_database_of_a_process": "sqlite:////proc/self/root{outside}/x.db",
    "a_database_by_a_uri": "sqlite:///file:{outside}/x.db?uri=true",
    "files": "file://{outside}",
    "a_line_end": "{known}\u2028{other}",
    "a_known_server_in_front": "{known}@{other_host}",
}


@pytest.mark.parametrize("kind", STORES)
def test_a_run_names_no_store(
    kind: str, written: Callable[..., Path], user: Path, tmp_path: Path, other: Server, server: Server, capsys: Any
) -> None:
    remember(store=server.uri)
    names: dict[str, Any] = {"other": other.uri, "other_host": other.uri.removeprefix("http://"), "known": server.uri}
    run = written(STORES[kind].format(**names, outside=tmp_path / "outside", runs=user / "runs"))
    (tmp_path / "outside").mkdir()
    (user / "runs" / "link").symlink_to(tmp_path / "outside")
    for command in (["sync", str(run)], ["sync"]):
        assert main(command) == 1
        said = capsys.readouterr().out.strip().split("\n")
        assert len(said) == 2
        assert " is not trusted. If you trust it: python -m dlframe sync " in said[0]
    assert list((tmp_path / "outside").iterdir()) == []
    assert not list(user.rglob("*.db"))
    assert server.seen == []


@pytest.mark.parametrize("known", ["the store", "the run", "both apart", "neither"])
def test_a_sweep_closes_only_runs_of_this_user(known: str, written: Callable[..., Path], server: Server) -> None:
    """A store that one uses oneself is no reason to deliver what lies beside one's runs."""
    theirs = written(server.uri, name="theirs")
    if known in ("the store", "both apart"):
        remember(store=server.uri)
    if known in ("the run", "both apart"):
        remember(run=theirs)
    assert list(close_interrupted_runs(theirs.parent / "mine", server.uri)) == []
    assert server.seen == []
    remember(run=theirs, store=server.uri)
    assert list(close_interrupted_runs(theirs.parent / "mine", server.uri)) == [f"{theirs}: uploaded, FINISHED"]


def test_a_live_run_sends_the_token_to_its_server_only(
    written: Callable[..., Path], server: Server, other: Server, tmp_path: Path
) -> None:
    """In the upload process, beside runs of others and with a server that sends it elsewhere."""
    server.location = f"{other.uri}/x"
    mine = written(server.uri, {"path": "result.json", "to": ""}, name="mine")
    theirs = [written(uri, name=name) for name, uri in {"a": server.uri, "b": other.uri}.items()]
    said = Tracker.start(mine).wait(60)
    assert said.startswith(f"MLflow rejected 1 record of {mine}/journal.jsonl: artifacts stay in the run directory: ")
    assert UploadState.load(mine).status == "FINISHED"
    assert not any((run / "tracking.json").exists() for run in theirs)
    assert {authorization for _, _, authorization, _ in server.seen} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("name", ["tracking.json", ".tracking.lock", "tracking.log"])
def test_what_an_upload_notes_follows_no_link(
    name: str, written: Callable[..., Path], server: Server, tmp_path: Path, capsys: Any
) -> None:
    run = written(server.uri)
    (run / name).symlink_to(tmp_path / "outside")
    assert main(["sync", str(run), f"uri={server.uri}"]) == 1
    assert f"{run / name} must not be a link. Remove it" in capsys.readouterr().out
    assert not (tmp_path / "outside").exists()


@needs_root
def test_a_folder_of_another_user_is_written_to_only_where_it_is_named(
    written: Callable[..., Path], server: Server, capsys: Any
) -> None:
    run = written(server.uri)
    os.chown(run, NOBODY, NOBODY)
    before = sorted(path.name for path in run.iterdir())
    assert main(["sync", f"uri={server.uri}"]) == 1
    assert f"{Path('runs/run')}: belongs to another user. To upload it from here, name the run" in capsys.readouterr().out
    assert (sorted(path.name for path in run.iterdir()), server.files()) == (before, {})
    assert main(["sync", str(run), f"uri={server.uri}"]) == 0
    assert "result.json" in server.files() or server.metrics()
