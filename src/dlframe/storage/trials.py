"""Where the trials of a study are kept, and who works on which: a journal in its folder, or PostgreSQL for a cluster.

Both kinds of lock belong to a process or a connection, so that they end with it: a trial whose process was killed is free.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from dlframe.types import ConfigError, DataError, WorkerError, opened

if TYPE_CHECKING:
    from psycopg import Connection

BLOCK = 2**12
JOURNAL = "journal"
ALONE = -1
"""Number of the claim of who chooses a trial."""


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

    def is_lost(self, number: int) -> bool:
        """Return whether another process may have the trial that this one had taken."""
        ...

    def close(self) -> None:
        """Let go of all trials."""
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
        file = folder / "optuna.journal"
        if os.path.lexists(file):
            with opened(file, inside=folder):  # a file, not a link
                pass
        try:
            self.optuna = JournalStorage(_Lines(file))
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

    def is_lost(self, number: int) -> bool:
        return False  # locks of the kernel end with the process

    def close(self) -> None:
        for number in [*self._claims]:
            self.release(number)


class _Lines(JournalFileBackend):
    """Optuna's journal with lines that are written whole or not at all.

    Optuna appends to whatever is there: what a killed process or a full disk left of a line would spoil the next one.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = FileLock(file.with_suffix(".lock"))
        super().__init__(str(file), lock_obj=self.lock)  # type: ignore[arg-type]  # it has both methods
        with self.lock, file.open("r+b") as journal:
            _cut_unfinished_line(journal)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            with self.lock, self.file.open("r+b", buffering=0) as journal:
                end = _cut_unfinished_line(journal)
                try:
                    if journal.write(lines) < len(lines):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(journal.fileno())
                except OSError:
                    journal.truncate(end)
                    raise
        except OSError as error:
            raise WorkerError(f"{self.file}: cannot be written: {error.strerror}. The same command continues") from None


def _cut_unfinished_line(journal: BinaryIO | FileIO) -> int:
    """Remove what is there of a last line without its end; return the length, where the file stands then."""
    end = length = journal.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        journal.seek(start)
        found = journal.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < length:
        journal.truncate(end)
    return journal.seek(end)


PATIENCE_SECONDS = 120
"""Time in which a server that was lost may come back."""
KEEP_SECONDS = 1
"""Time between two looks at whether the server still has the claims."""
SETTLE_SECONDS = 5
"""Time after the start of a server in which those who work on trials take their claims again."""
OPTIONS = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
"""Settings of a session: a machine that is gone holds its claims for less than a minute."""


LOCK = "select pg_advisory_lock(%(space)s, %(number)s)"
TRY = "select pg_try_advisory_lock(%(space)s, %(number)s)"
UNLOCK = "select pg_advisory_unlock(%(space)s, %(number)s)"
END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %(token)s and pid <> pg_backend_pid()"


class PostgreSQL:
    """Optuna's tables in PostgreSQL, with advisory locks of the server as claims.

    A server that is restarted forgets the locks: they are taken again within seconds, before another process may take them.

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
        self._open = psycopg.connect
        self._losses = (psycopg.OperationalError, psycopg.InterfaceError)
        self.address = address
        self.connection: Connection[Any] | None = None
        self._tables: RDBStorage | None = None
        self.space = zlib.crc32(name.encode()) - 2**31
        self.token = f"dlframe-{secrets.token_hex(8)}"
        self._claims: set[int] = set()
        self._lost: set[int] = set()
        self._sessions = 0
        self._mutex = threading.RLock()
        self._closed = threading.Event()
        try:
            self.connection = self._connect()
            with self.alone():  # two processes that create the tables at once fail
                self._tables = _tables(address)
        except (psycopg.Error, SQLAlchemyError) as error:
            self.close()
            raise ConfigError(f"storage: cannot be used: {_one_line(error)}", "storage") from None
        except ConfigError:
            self.close()
            raise
        self.optuna = _Patient(get_storage(self._tables))
        threading.Thread(target=self._keep, daemon=True).start()

    @contextmanager
    def alone(self) -> Iterator[None]:
        self._ask(LOCK, ALONE)
        self._claims.add(ALONE)
        try:
            yield
        finally:
            self.release(ALONE)

    def take(self, number: int) -> bool:
        if number in self._claims:
            return False
        while True:
            age = float(self._ask("select extract(epoch from now() - pg_postmaster_start_time())"))
            session = self._sessions
            time.sleep(max(0, SETTLE_SECONDS - age))
            taken = self._ask(TRY, number)
            if session == self._sessions:
                break
            self._ask(UNLOCK, number)  # the server may have been restarted in between
        if taken:
            self._claims.add(number)
        return bool(taken)

    def release(self, number: int) -> None:
        self._claims.discard(number)
        self._lost.discard(number)
        self._ask(UNLOCK, number)

    def is_lost(self, number: int) -> bool:
        return number in self._lost

    def close(self) -> None:
        """Let go of all trials."""
        self._closed.set()
        with self._mutex:
            if self.connection:
                self.connection.close()
            if self._tables:
                self._tables.engine.dispose()

    def _connect(self) -> Connection[Any]:
        return self._open(
            self.address, autocommit=True, connect_timeout=10, keepalives_idle=20, application_name=self.token, options=OPTIONS
        )

    def _keep(self) -> None:
        """Notice a lost connection while a trial is trained, and take the claims again."""
        while not self._closed.wait(KEEP_SECONDS):
            with contextlib.suppress(WorkerError):  # whoever asks next is told
                self._ask("select 1")

    def _ask(self, query: str, number: int | None = None) -> Any:
        """Ask the server; after a lost connection, with a new one that takes the claims again."""
        with self._mutex:
            while True:
                try:
                    return self._query(query, number)
                except self._losses as error:
                    if self._closed.is_set():
                        return None
                    self._reconnect(error)

    def _reconnect(self, error: Exception) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self.connection:
                    self.connection.close()
                self.connection = self._connect()
                self._sessions += 1
                self._query(END)  # the old session, which the server may take for alive
                for claim in sorted(self._claims):
                    if claim == ALONE:
                        self._query(LOCK, claim)
                    elif not self._taken_again(claim):
                        self._lost.add(claim)
                return
            except self._losses as later:
                if time.monotonic() > deadline:
                    raise _lost(later) from error
                time.sleep(KEEP_SECONDS / 2)

    def _taken_again(self, claim: int) -> bool:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._query(TRY, claim):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _query(self, query: str, number: int | None = None) -> Any:
        values = {"space": self.space, "number": number, "token": self.token}
        assert self.connection
        row = self.connection.execute(query.encode(), values).fetchone()
        return row[0] if row else None


def _tables(address: str) -> RDBStorage:
    """Return Optuna's storage in a database."""
    engine = {"pool_pre_ping": True, "pool_size": 2, "connect_args": {"connect_timeout": 10, "options": OPTIONS}}
    tables = RDBStorage(
        address.replace("postgresql://", "postgresql+psycopg://", 1), engine_kwargs=engine, skip_compatibility_check=True
    )
    if (theirs := tables.get_current_version()) != (ours := tables.get_head_version()):
        tables.engine.dispose()
        raise ConfigError(
            f"storage: its tables are of another Optuna: must be of version {ours}. Received: {theirs}.", "storage"
        )
    return tables


def _patient(name: str) -> Callable[..., Any]:
    """Return a method of Optuna's storage that waits for a server that was lost."""

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        count = self.inner.get_n_trials(arguments[0]) if (creates := name == "create_new_trial") else 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        again = False
        while True:
            try:
                if again and creates and len(known := self.inner.get_all_trials(arguments[0], deepcopy=False)) > count:
                    return known[-1]._trial_id  # it was created, and the answer lost
                return getattr(self.inner, name)(*arguments, **options)
            except UpdateFinishedTrialError:
                if not again:
                    raise
                return True  # it was noted, and the answer lost
            except (StorageInternalError, SQLAlchemyError) as error:
                cause = error.__cause__ or error
                if not isinstance(cause, (OperationalError, InterfaceError)):
                    raise WorkerError(f"storage: {_one_line(cause)}") from error
                if time.monotonic() > deadline:
                    raise _lost(cause) from error
                again = True
                time.sleep(KEEP_SECONDS / 2)

    return method


class _Inner:
    def __init__(self, inner: BaseStorage) -> None:
        self.inner = inner


_Patient: Any = type("_Patient", (_Inner, BaseStorage), {name: _patient(name) for name in BaseStorage.__abstractmethods__})
"""Optuna's storage whose server may be restarted."""


def _lost(error: BaseException) -> WorkerError:
    return WorkerError(f"storage: the server does not come back: {_one_line(error)}. The same command continues")


def _one_line(error: BaseException) -> str:
    """Return the reason that the server gives, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300].rstrip(".")
