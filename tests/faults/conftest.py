"""What the fault tests share: a disk that can be filled."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_BYTES = 2**20


class SmallDisk:
    """A file system of its own, of a megabyte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ballast = path / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Leave that many bytes, to the next block."""
        self.free()
        with self.ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(DISK_BYTES)):
                    pass
            file.truncate(file.tell() - leave)

    def free(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that a test fills and frees."""
    path = tmp_path / "small disk"
    path.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no disk of our own: {error}")
    if mounted.returncode:
        pytest.skip(f"no disk of our own: {mounted.stderr.splitlines()[0]}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
