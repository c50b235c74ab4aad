"""The SQLite file of an MLflow store: whole, of this MLflow's schema, and with its artifacts where they are now."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
from alembic.script import ScriptDirectory
from filelock import FileLock
from mlflow.store.db import utils
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.file_utils import local_file_uri_to_path

from dlframe.storage.known import sqlite_uri
from dlframe.types import TrackingError

# Private, MLflow 3.17: it makes the folder of an address that it has not decoded, beside that of the file.
utils._make_parent_dirs_if_sqlite = lambda db_uri: None

BESIDE = ("-journal", "-wal", "-shm")
"""Files of SQLite beside a database."""
PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns of places of artifacts, below those of their experiments."""


@contextlib.contextmanager
def prepared(database: Path) -> Iterator[str]:
    """Hold the lock of a store's file, which is there and can be opened; yield what was mended, in one line.

    Two processes that create an SQLite store at once break the store.

    Raises:
        TrackingError: The file is that of a newer MLflow, or of something else.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        version = _version(database)
        if not version:
            notes = [_make(database)]
        elif version != utils._get_latest_schema_revision():
            notes = [_migrate(database, version)]
        else:
            notes = []
        yield "; ".join(filter(None, [*notes, _follow_folder(database)]))


@contextlib.contextmanager
def _connected(database: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing file, and commit what is changed in it."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=30)) as connection, connection:
        yield connection


def _version(database: Path) -> str:
    """Return the version of a store's schema; empty where there is none, as the process that made it was killed."""
    if not database.exists():
        return ""
    with _connected(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "alembic_version" in tables and (row := connection.execute("SELECT version_num FROM alembic_version").fetchone()):
            return str(row[0])
        if tables and "experiments" not in tables:
            raise TrackingError(f"tracking.uri: {database} is not a store of MLflow: it has the table '{min(tables)}'")
        if "runs" in tables and connection.execute("SELECT 1 FROM runs").fetchone():
            raise TrackingError(f"tracking.uri: {database} has runs and no version of its schema. Move it away")
    return ""


def _make(database: Path) -> str:
    """Make a store under another name, so that a kill leaves nothing under its own; return what was moved away."""
    note = ""
    if database.exists() and database.stat().st_size:
        kept = _free(database, "unfinished")
        database.replace(kept)
        note = f"{database} was unfinished and is made anew; the unfinished file is {kept.name}"
    new = database.with_name(f".{database.name}.new")
    for file in (new, *(Path(f"{path}{end}") for path in (new, database) for end in BESIDE)):
        file.unlink(missing_ok=True)
    store = SqlAlchemyStore(sqlite_uri(new), (database.parent / "artifacts").as_uri())
    store._dispose_engine()
    new.replace(database)
    return note


def _migrate(database: Path, version: str) -> str:
    """Migrate a store of an older MLflow, of which a copy is kept."""
    scripts = ScriptDirectory.from_config(utils._get_alembic_config(""))
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise TrackingError(
            f"tracking.uri: {database} was written by a newer MLflow than {mlflow.__version__}, the one installed here "
            f"(its schema is {version[:40]!r}). Install that MLflow, or name another store: tracking.uri=sqlite:///PATH"
        )
    copy = _free(database, version)
    with contextlib.closing(sqlite3.connect(copy)) as target, _connected(database) as source:
        source.backup(target)
    engine = utils.create_sqlalchemy_engine(sqlite_uri(database))
    try:
        utils._upgrade_db(engine)
    except Exception as error:
        raise TrackingError(f"tracking.uri: {database} cannot be migrated, a copy is in {copy.name}: {error}") from error
    finally:
        engine.dispose()
    return f"{database} is migrated to the schema of MLflow {mlflow.__version__}; the store before is in {copy.name}"


def _free(database: Path, word: str) -> Path:
    """Return a name beside the database that is free."""
    names = (database.with_name(f"{database.name}.{word}{f'-{number}' if number else ''}") for number in range(10_000))
    return next(path for path in names if not os.path.lexists(path))


def _follow_folder(database: Path) -> str:
    """Where the folder of a store was renamed or copied with its artifacts, let the store say where they are now."""
    root = database.parent / "artifacts"
    moved: list[str] = []
    with _connected(database) as connection:
        for number, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            before = _local(location)
            if before is None or before.parent.name != root.name or before.parent == root or before.name == "..":
                continue
            if not (root / before.name).is_dir():
                continue
            now = (root / before.name).as_uri()
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, number))
            for table, column in PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (now, len(location) + 1, len(location) + 1, f"{location}/"),
                )
            moved.append(str(before.parent))
    return f"{database}: artifacts of {', '.join(sorted({*moved}))} are now in {root}" if moved else ""


def _local(location: str | None) -> Path | None:
    """Return the folder of a location on this machine; None for another one."""
    if location and location.startswith(("file:///", "/")):
        return Path(local_file_uri_to_path(location))
    return None
