"""Data that cannot be written to, is broken in one place, or vanishes while a run uses it."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import dlframe, until
from tests.faults.conftest import SmallDisk

from dlframe.data import image_folder as module
from dlframe.data.image_folder import image_folder
from dlframe.runs import journal
from dlframe.types import DataError


def photos(folder: Path, count: int, side: int = 8) -> Path:
    """`count` images in two classes, bright and dark."""
    rng = np.random.default_rng(0)
    for low, name in ((0, "dark"), (128, "bright")):
        (folder / name).mkdir(parents=True)
        kinds = []
        for _ in range(20):
            image = io.BytesIO()
            Image.fromarray(rng.integers(low, low + 128, (side, side), dtype=np.uint8)).save(image, "PNG")
            kinds.append(image.getvalue())
        for number in range(count // 2):
            (folder / name / f"{number:05d}.png").write_bytes(kinds[number % len(kinds)])
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where data are decoded to."""
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


TRAIN = ("model=mlp", "data=image_folder", "data.path=photos", "data.image_size=8", "tracking=none", "epochs=2")


def test_data_on_a_disk_that_is_mounted_read_only(small_disk: SmallDisk) -> None:
    folder = photos(small_disk.path / "photos", 60)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk.path)], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        (folder / "new").touch()
    dataset = image_folder(path=str(folder), image_size=8)
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 60


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write everywhere")
def test_data_in_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 60)
    for place in (folder, *folder.iterdir()):
        place.chmod(0o555)
    try:
        assert image_folder(path=str(folder), image_size=8).train.inputs.shape == (36, 3, 8, 8)
    finally:
        for place in (folder, *folder.iterdir()):
            place.chmod(0o755)


def test_one_broken_image_among_ten_thousand(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = photos(tmp_path / "photos", 10_000)
    broken = folder / "bright" / "03141.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError) as error:
        image_folder(path=str(folder), image_size=8, color_mode="grayscale")
    assert str(error.value).startswith("image_folder: bright/03141.png is broken: ")
    assert str(error.value).endswith("Remove it, or skip such files: data.on_error=skip")

    dataset = image_folder(path=str(folder), image_size=8, color_mode="grayscale", on_error="skip")
    assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 9999
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("image_folder: skipped 1 of 10000 files: bright/03141.png is broken: ")


@pytest.mark.slow
def test_a_run_does_not_notice_that_its_data_are_removed(tmp_path: Path, cache: Path) -> None:
    """In mid-epoch: the images, and the memory map that they were decoded into."""
    folder = photos(tmp_path / "photos", 2000)
    command = [sys.executable, "-m", "dlframe", *TRAIN, "epochs=40", "log_every_n_steps=1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        (run,) = until(lambda: [path.parent for path in tmp_path.glob("runs/*/journal.jsonl")])
        until(lambda: "train/loss" in journal.history(run))
        shutil.rmtree(folder)
        shutil.rmtree(cache)
        last = journal.history(run)["train/loss"][-1][0]
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "test accuracy" in out
    assert journal.ended(run) == "FINISHED"
    assert journal.history(run)["train/loss"][-1][0] > last


def test_a_run_that_is_killed_while_it_decodes_goes_on_where_it_was(tmp_path: Path, cache: Path, capsys, monkeypatch) -> None:
    """Killed twice, with a file that changes in between; what was decoded before is not read again."""
    folder = photos(tmp_path / "photos", 2000, side=128)
    transparent = folder / "bright" / "00000.png"  # the first file: what was assumed of it is kept too
    Image.new("LA", (128, 128), (9, 100)).save(transparent)
    script = (
        "import sys, time; from dlframe.readers import decoding; decoding.SAVED_SECONDS = 0.05\n"
        "from dlframe.data import image_folder; own = image_folder.read_image\n"
        "image_folder.read_image = lambda *given: (time.sleep(0.01), own(*given))[1]\n"
        "image_folder.image_folder(path=sys.argv[1], image_size=32)"
    )

    def done() -> int:
        files = list(cache.glob("decoded/*.pixels/hashes.npy"))
        return int(np.load(files[0]).any(1).sum()) if files and files[0].stat().st_size else 0

    for enough in (100, 300):
        with subprocess.Popen([sys.executable, "-c", script, str(folder)], stderr=subprocess.DEVNULL) as process:
            until(lambda enough=enough: done() >= enough)
            process.send_signal(signal.SIGKILL)
    assert not list(cache.glob("decoded/*/facts.json"))
    before = done()
    assert before < 2000
    changed = folder / "bright" / "00001.png"
    Image.new("L", (128, 128), 77).save(changed)
    read: list[Path] = []
    own = module.read_image
    monkeypatch.setattr(module, "read_image", lambda file, *rest: (read.append(file), own(file, *rest))[1])
    dataset = image_folder(path=str(folder), image_size=32)
    said = capsys.readouterr().err
    assert "was killed while reading" in said
    assert f"; {before - 1:,} are decoded already\n" in said
    assert "1 of 2,000 images transparent, laid on white (data.background): bright/00000.png" in said
    assert len(read) == len({*read}) == 2000 - before + 1
    assert changed in read
    assert transparent not in read
    shutil.rmtree(cache)
    assert image_folder(path=str(folder), image_size=32).fingerprint == dataset.fingerprint
    assert "was killed while reading" not in capsys.readouterr().err


def test_a_decoder_that_kills_the_process_is_told_with_its_file(tmp_path: Path, cache: Path, capsys) -> None:
    folder = photos(tmp_path / "photos", 100)
    bad = sorted(folder.rglob("*.png"))[17]
    script = (
        "import signal, sys, threading\n"
        "from dlframe.data import image_folder\n"
        "own = image_folder.read_image\n"
        "def crashes(file, *rest):\n"
        "    if str(file) == sys.argv[2]:\n"
        "        signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)\n"
        "    return own(file, *rest)\n"
        "image_folder.read_image = crashes\n"
        "image_folder.image_folder(path=sys.argv[1], image_size=8)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(folder), str(bad)], capture_output=True, check=False)
    assert died.returncode == -signal.SIGSEGV
    image_folder(path=str(folder), image_size=8)
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "was killed while reading" in line)
    assert str(bad) in said


def test_a_disk_that_is_too_small_for_the_decoded_images(
    small_disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: to write into a memory map without room ends it by SIGBUS."""
    photos(tmp_path / "photos", 100)
    small_disk.path.chmod(0o700)
    monkeypatch.setenv("DLFRAME_DATA", str(small_disk.path))
    done = dlframe(*TRAIN, "data.image_size=100", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "pixels take 0.003 GB, of which the disk of " in done.stderr.splitlines()[-1]
