"""Where the trials of a study are kept, and who works on which: a journal in its folder, or PostgreSQL for a cluster.

Both kinds of lock belong to a process or a connection, so that they end with it: a trial whose process was killed is free.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from dlframe.types import ConfigError, DataError, opened, read_bytes

LARGEST = 2**31
"""Bytes of a journal, of some million trials."""
JOURNAL = "journal"


class Storage(Protocol):
    """Trials of a study, as Optuna keeps them, and the claims on them.

    Attributes:
        optuna: Optuna's storage.
    """

    @property
    def optuna(self) -> BaseStorage: ...

    def alone(self) -> AbstractContextManager[Any]:
        """Keep other processes from choosing or claiming trials."""
        ...

    def take(self, number: int) -> bool:
        """Take a trial; False if a process that lives has it."""
        ...

    def release(self, number: int) -> None:
        """Let go of a trial."""
        ...


def check(address: str) -> str:
    """Return the address of a storage if it is one.

    Raises:
        ConfigError: It is none, or holds a password, which would be written to files.
    """
    if address == JOURNAL:
        return address
    try:
        parts = urlsplit(address)
        is_one = parts.scheme == "postgresql" and bool(parts.hostname) and bool(parts.path.strip("/")) and not parts.query
        _ = parts.port
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigError(
            f"storage: must be journal, for a file in the folder of the study, or postgresql://USER@HOST:PORT/DATABASE. "
            f"Received: {address.partition('@')[2] or address!r}.",
            "storage",
        )
    if parts.password is not None:
        raise ConfigError(
            "storage: must hold no password. It is read from the variable PGPASSWORD or the file that PGPASSFILE names.",
            "storage",
        )
    return address


def open_storage(address: str, folder: Path) -> Storage:
    """Open the storage of the study in a folder.

    Raises:
        ConfigError: It cannot be reached.
        DataError: It is damaged.
    """
    return Journal(folder) if address == JOURNAL else PostgreSQL(address, folder.name)


class Journal:
    """Optuna's journal in the folder of the study, for one machine or machines that share storage.

    Args:
        folder: Folder of the study.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        self._alone = FileLock(folder / "lock")
        self._claims: dict[int, FileLock] = {}
        file, lock = folder / "optuna.journal", FileLock(folder / "optuna.lock")
        try:
            with lock:
                _cut_unfinished_line(file)
            self.optuna = JournalStorage(JournalFileBackend(str(file), lock_obj=lock))  # type: ignore[arg-type]  # it has both methods
        except Exception as error:  # of Optuna, whatever a damaged line makes it raise
            raise DataError(f"{file}: is damaged: {type(error).__name__}: {error}") from None

    def alone(self) -> AbstractContextManager[Any]:
        return self._alone

    def take(self, number: int) -> bool:
        if number in self._claims:
            return False
        lock = FileLock(self.folder / "trials" / f"{number:04d}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._claims[number] = lock
        return True

    def release(self, number: int) -> None:
        self._claims.pop(number).release()


def _cut_unfinished_line(journal: Path) -> None:
    """Remove what a process that was killed wrote of its last line."""
    if not os.path.lexists(journal):
        return
    content = read_bytes(journal, LARGEST, inside=journal.parent)
    if not content.endswith(b"\n") and content:
        with opened(journal, inside=journal.parent):  # it is a file, not a link
            os.truncate(journal, content.rfind(b"\n") + 1)


class PostgreSQL:
    """Optuna's tables in PostgreSQL, with advisory locks of the server as claims.

    Args:
        address: postgresql://USER@HOST:PORT/DATABASE.
        name: Name of the study.
    """

    def __init__(self, address: str, name: str) -> None:
        try:
            import psycopg
        except ImportError:
            fix = "Try: python -m pip install 'dlframe[postgresql]'"
            raise ConfigError(f"storage: PostgreSQL requires psycopg. {fix}", "storage") from None
        from sqlalchemy.exc import SQLAlchemyError

        self.errors: tuple[type[Exception], ...] = (psycopg.Error, SQLAlchemyError)
        self.address = address
        self.space = zlib.crc32(name.encode()) - 2**31
        self._claims: set[int] = set()
        self._mutex = threading.Lock()
        self._connect = lambda: psycopg.connect(address, autocommit=True, connect_timeout=10, keepalives_idle=30)
        try:
            self.connection = self._connect()
            with self.alone():  # two processes that create the tables at once fail
                self.optuna = RDBStorage(
                    address.replace("postgresql://", "postgresql+psycopg://", 1),
                    engine_kwargs={"pool_pre_ping": True, "pool_size": 2},
                )
        except RuntimeError as error:
            raise ConfigError(f"storage: is of another version of Optuna: {error}", "storage") from None
        except self.errors as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"storage: cannot be reached: {reason}", "storage") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._ask("select pg_advisory_lock(%s, %s)", -1)
        try:
            yield
        finally:
            self._ask("select pg_advisory_unlock(%s, %s)", -1)

    def take(self, number: int) -> bool:
        if number in self._claims:
            return False
        if taken := self._ask("select pg_try_advisory_lock(%s, %s)", number):
            self._claims.add(number)
        return bool(taken)

    def release(self, number: int) -> None:
        self._claims.discard(number)
        self._ask("select pg_advisory_unlock(%s, %s)", number)

    def _ask(self, query: str, number: int) -> Any:
        """Ask the server; after a lost connection, with a new one that takes the claims again."""
        with self._mutex:
            try:
                return self._query(query, number)
            except self.errors:
                self.connection = self._connect()
                for claim in self._claims:
                    self._query("select pg_try_advisory_lock(%s, %s)", claim)
                return self._query(query, number)

    def _query(self, query: str, number: int) -> Any:
        row = self.connection.execute(query.encode(), (self.space, number)).fetchone()
        return row[0] if row else None
