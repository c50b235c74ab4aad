"""Caches are of one user: others neither read private pictures in them nor plant data, weights or code."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import dlframe
from tests.security.conftest import NOBODY, needs_root, photos

from dlframe.data.image_folder import image_folder
from dlframe.storage.fetch import Package, download, member
from dlframe.storage.private import keep_kernels_private
from dlframe.types import DataError

NOWHERE = "http://127.0.0.1:9"
CONTENT = b"published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- who can read what was decoded


def existing(folder: Path, rights: int, owner: int = -1) -> str:
    (folder / "decoded").mkdir(parents=True)
    for place in (folder / "decoded", folder):
        place.chmod(rights)
        os.chown(place, owner, owner)
    return str(folder)


PLACES: dict[str, tuple[Callable[[Path], str], str]] = {
    "no DLFRAME_DATA": (lambda home: "", ".cache/dlframe"),
    "a new one": (lambda home: str(home / "data"), "data"),
    "one that others read": (lambda home: existing(home / "data", 0o755), "data"),
    "an earlier cache that a group could write": (
        lambda home: existing(home / ".cache" / "dlframe", 0o775) and "",
        ".cache/dlframe",
    ),
    "one of another account": (lambda home: existing(home / "data", 0o755, NOBODY), ".cache/dlframe"),
    "one of another account that all write": (lambda home: existing(home / "data", 0o777, NOBODY), ".cache/dlframe"),
}


@pytest.mark.parametrize("place", [pytest.param(p, marks=needs_root if "account" in p else ()) for p in PLACES])
def test_decoded_pictures_are_in_a_folder_of_the_user_only(place: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = PLACES[place]
    monkeypatch.setenv("DLFRAME_DATA", make(home))
    image_folder(path=str(photos(home / "photos")))
    arrays = list(home.rglob("*.npy"))
    assert arrays
    for array in arrays:
        assert array.is_relative_to(home / expected / "decoded")
        assert [mode(path) for path in (array, array.parent, array.parent.parent)] == [0o600, 0o700, 0o700]


@needs_root
@pytest.mark.parametrize("name", ["train-inputs.npy", "train-ids.npy", "facts.json"])
def test_another_account_cannot_read_them(name: str, home: Path) -> None:
    image_folder(path=str(photos(home / "photos")))
    for place in (home, *home.parents[:3]):  # only the cache is to keep others out
        place.chmod(mode(place) | 0o555)
    (file,) = home.rglob(name)
    if not (child := os.fork()):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            file.read_bytes()
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- who can plant what is used


def planted(folder: Path) -> Path:
    np.save(folder / "train-inputs.npy", np.zeros_like(np.load(folder / "train-inputs.npy")))
    return folder / "train-inputs.npy"


PLANTS: dict[str, Callable[[Path], Any]] = {
    "an array that all can write": lambda folder: planted(folder).chmod(0o666),
    "a folder that all can write": lambda folder: (planted(folder), folder.chmod(0o777)),
    "a cache that all can write": lambda folder: (planted(folder), folder.parent.chmod(0o777)),
    "a link": lambda folder: (planted(folder).rename(folder / "x.bin"), (folder / "train-inputs.npy").symlink_to("x.bin")),
    "an array of another account": lambda folder: os.chown(planted(folder), NOBODY, NOBODY),
    "metadata of another account": lambda folder: (planted(folder), os.chown(folder / "facts.json", NOBODY, NOBODY)),
    "a folder of another account": lambda folder: (planted(folder), os.chown(folder, NOBODY, NOBODY)),
}


@pytest.mark.parametrize("plant", [pytest.param(p, marks=needs_root if "account" in p else ()) for p in PLANTS])
def test_what_others_could_write_is_decoded_anew(plant: str, home: Path) -> None:
    fingerprint = image_folder(path=str(photos(home / "photos"))).fingerprint
    (folder,) = (path.parent for path in home.rglob("facts.json"))
    PLANTS[plant](folder)
    assert image_folder(path="photos").fingerprint == fingerprint
    assert mode(folder.parent) == 0o700


def other(folder: Path, content: bytes, owner: int = NOBODY, rights: int = 0o644) -> Path:
    """A file of another account in a shared folder."""
    file = folder / "downloads" / "x.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    file.chmod(rights)
    for place in (file, file.parent, folder):
        os.chown(place, owner, owner)
    return file


FILES: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "the user's own": (lambda folder: other(folder, CONTENT, 0), True),
    "the user's own, changed": (lambda folder: other(folder, b"changed", 0), False),
    "another account's": (lambda folder: other(folder, CONTENT), True),
    "another account's, changed": (lambda folder: other(folder, b"changed"), False),
    "root's in a folder of another account's": (
        lambda folder: (file := other(folder, b"changed"), os.chown(file, 0, 0))[0],
        False,
    ),
}


@needs_root
@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_used_if_it_has_the_published_hash(kind: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, good = FILES[kind]
    monkeypatch.setenv("DLFRAME_DATA", str(home / "data"))
    monkeypatch.setattr("dlframe.storage.fetch._unreachable", {})
    file = make(home / "data")
    own = home / ("data" if file.parent.stat().st_uid == 0 else ".cache/dlframe")
    if not good:
        with pytest.raises(DataError, match=r"^http://127.0.0.1:9/x.bin: cannot be reached"):
            download(f"{NOWHERE}/x.bin", own / "downloads" / "x.bin", f"sha256:{SHA256}")
        return
    used = download(f"{NOWHERE}/x.bin", own / "downloads" / "x.bin", f"sha256:{SHA256}")
    file.write_bytes(CONTENT if file == used else b"changed later")
    assert used.read_bytes() == CONTENT
    assert used.is_relative_to(own)


@needs_root
@pytest.mark.parametrize("checksum", [SHA256, ""])
def test_a_member_of_a_package_without_a_hash_is_not_taken_from_others(
    checksum: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("npm", "toy", "1.0", "0" * 64, 1, "MIT")
    folder = home / "data" / "packages" / "npm-toy-000000000000"
    folder.mkdir(parents=True)
    (folder / "x.bin").write_bytes(CONTENT)
    for place in (folder / "x.bin", folder, folder.parent, home / "data"):
        os.chown(place, NOBODY, NOBODY)
    monkeypatch.setenv("DLFRAME_DATA", str(home / "data"))
    monkeypatch.setenv("PATH", str(home))
    if checksum:
        assert member(package, "x.bin", checksum).read_bytes() == CONTENT
    else:
        with pytest.raises(DataError, match=r"^toy: requires npm"):
            member(package, "x.bin")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda home: existing(home / "data", 0o777),
            r"^DLFRAME_DATA: must be writable .* Received: .*, mode 777. Try: chmod go-w",
        ),
        (
            lambda home: existing(home / "data", 0o775),
            r"^DLFRAME_DATA: must be writable .* Received: .*, mode 775. Try: chmod go-w",
        ),
        pytest.param(
            lambda home: existing(home / ".cache" / "dlframe", 0o755, NOBODY) and "",
            r"^.*/.cache/dlframe: must be a folder of your own. Received: of user 65534. Try: DLFRAME_DATA=FOLDER$",
            marks=needs_root,
        ),
        (
            lambda home: (home / "data").mkdir() or (home / "data" / "decoded").symlink_to(home) or str(home / "data"),
            r"^.*/data/decoded: must be a folder of your own. Received: a link or file. Try: DLFRAME_DATA=FOLDER$",
        ),
    ],
)
def test_a_cache_that_is_not_the_users_own_is_refused(make: Any, message: str, home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DLFRAME_DATA", make(home))
    with pytest.raises(DataError, match=message) as error:
        image_folder(path=str(photos(home / "photos")))
    assert "\n" not in str(error.value)


# --- compiled code

KERNELS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@pytest.mark.parametrize("data", ["", "data"])
@pytest.mark.parametrize("before", ["nothing", "a folder that a group writes", "the user's choice"])
def test_compiled_code_is_in_a_folder_of_the_user_only(data: str, before: str, home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DLFRAME_DATA", str(home / data) if data else "")
    for variable in KERNELS:
        monkeypatch.setenv(variable, str(home / "chosen"))  # restored at the end
        if before != "the user's choice":
            monkeypatch.delenv(variable)
    cache = home / (data or ".cache/dlframe")
    if before == "a folder that a group writes":
        (cache / "torchinductor").mkdir(parents=True)
        (cache / "torchinductor").chmod(0o775)
    keep_kernels_private()
    from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

    if before == "the user's choice":
        assert {cache_dir(), triton_cache_dir(0)} == {str(home / "chosen")}
        return
    assert (cache_dir(), triton_cache_dir(0)) == (str(cache / "torchinductor"), str(cache / "triton"))
    assert [mode(cache / name) for name in ("torchinductor", "triton")] == [0o700, 0o700]


@needs_root
@pytest.mark.parametrize("variable", KERNELS)
def test_a_folder_of_compiled_code_of_another_account_is_not_used(variable: str, home: Path, monkeypatch: Any) -> None:
    for each in KERNELS:
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    folder = home / ".cache" / "dlframe" / {"TRITON_CACHE_DIR": "triton"}.get(variable, "torchinductor")
    folder.mkdir(parents=True)
    os.chown(folder, NOBODY, NOBODY)
    keep_kernels_private()
    used = Path(os.environ[variable])
    assert used != folder
    assert (mode(used), used.stat().st_uid) == (0o700, 0)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("early", ["", "import torch._dynamo; "])
def test_compiling_does_not_use_a_folder_in_tmp(early: str, home: Path) -> None:
    """The folder with the name that torch would take belongs to somebody else."""
    taken = home / "tmp" / "torchinductor_root"
    taken.mkdir(parents=True)
    os.chown(taken, NOBODY, NOBODY)
    code = f"{early}import dlframe, torch; dlframe.run('model=mlp', 'compile=true', 'epochs=1', 'tracking=none', 'resume=none')"
    environment = {name: value for name, value in os.environ.items() if name not in KERNELS}
    environment |= {"TMPDIR": str(home / "tmp"), "USER": "root", "LOGNAME": "root"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert list(taken.rglob("*.py")) == []
    if early:
        assert "compile: others can write to torch's folder of compiled code. Received: " in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert any((home / ".cache" / "dlframe" / "torchinductor").iterdir())


# --- processes that talk to one another

LISTENING = '''
import json, os, re
from pathlib import Path
from dlframe.registry import callbacks
from lightning.pytorch import Callback

@callbacks.register("listening")
class Listening(Callback):
    """Notes at which addresses this process listens, and who may enter the folder where the processes met."""

    def __init__(self) -> None:
        pass

    def on_train_batch_end(self, trainer, *arguments) -> None:
        files = [file for file in Path("/proc/self/fd").iterdir() if os.path.lexists(file)]
        own = {link[8:-1] for link in map(os.readlink, files) if link.startswith("socket:")}
        rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
        found = [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in own]
        rights = os.stat(os.path.dirname(os.environ["DLFRAME_MEETING"])).st_mode & 0o777
        Path(f"listening-{trainer.global_rank}.json").write_text(json.dumps([found, rights, trainer.world_size]))
'''


@pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="Linux tells the sockets of a process")
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_processes_on_one_machine_listen_on_loopback_only(model: str, tmp_path: Path) -> None:
    (tmp_path / "listening.py").write_text(LISTENING)
    options = [f"model={model}", "epochs=1", "trainer.limit_batches=2", "tracking=none", "trainer=ddp", "callback=[listening]"]
    done = dlframe(*options, "plugin_paths=[listening.py]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        addresses, rights, processes = json.loads((tmp_path / f"listening-{rank}.json").read_text())
        assert addresses
        assert set(addresses) <= {"0100007F", "00000000000000000000000001000000"}
        assert (rights, processes) == (0o700, 2)


def test_the_folder_where_processes_met_is_removed(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    code = "from dlframe.engine.internals import _meeting; print(_meeting())"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(tmp_path / "temporary"))
    assert list((tmp_path / "temporary").iterdir()) == []
