"""The digits as image files of the user."""

import os
import re
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlframe.cli import main
from dlframe.data import image_folder as module
from dlframe.data.digits import digits
from dlframe.data.image_folder import image_folder
from dlframe.storage import decoded as cached
from dlframe.types import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))


def write(folder: Path, classes: dict[str, int], each: int = 10) -> Path:
    """`each` test digits of every class, as PNG files."""
    test = digits().test
    for name, label in classes.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(test["image"][test["label"] == label][:each]):
            Image.fromarray(image[0]).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "it's a = 'ü 数字'", {"one": 1, "two = 2": 2, "drei\"'ß": 3})


def test_without_a_split(folder, capsys):
    dataset = image_folder(path=str(folder), image_size=8, color_mode="grayscale")
    assert dataset.spec.classes == ("drei\"'ß", "one", "two = 2")
    assert dataset.spec.shape == (1, 8, 8)
    assert sum(len(s) for s in (dataset.train, dataset.validation, dataset.test)) == 30
    assert dataset.splits == "60/20/20 by hash"
    assert dataset.source == str(folder)
    assert capsys.readouterr().err == f"Decoding 30 images of {folder} (once)\n"
    for split in (dataset.train, dataset.validation, dataset.test):
        for image, target, name in zip(split["image"], split["label"], split.ids, strict=True):
            assert (np.asarray(Image.open(folder / name)) == image[0]).all()
            assert dataset.spec.classes[target] == name.split("/")[0]
    np.testing.assert_allclose(dataset.spec.input.std, (dataset.train["image"] / 255).std())


def test_decoded_once_until_a_file_changes(folder, monkeypatch, capsys):
    first = image_folder(path=str(folder), image_size=8)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_image", None)
        again = image_folder(path=str(folder), image_size=8)
    assert isinstance(again.train["image"], np.memmap)
    assert again.fingerprint == first.fingerprint
    capsys.readouterr()
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(folder / again.train.ids[0])
    changed = image_folder(path=str(folder), image_size=8)
    assert (changed.train["image"][0] == 77).all()
    assert (changed.train["image"][1:] == first.train["image"][1:]).all()
    assert capsys.readouterr().err == f"Decoding 1 image of {folder} (once); 29 are decoded already\n"
    for file in folder.rglob("*.png"):
        os.utime(file)
    (folder / changed.train.ids[1]).chmod(0o600)
    assert image_folder(path=str(folder), image_size=8).fingerprint == changed.fingerprint
    assert capsys.readouterr().err == ""
    assert image_folder(path=str(folder), image_size=16).spec.shape == (3, 16, 16)


def test_a_content_that_changes_behind_the_same_time_and_size(folder, monkeypatch):
    monkeypatch.setattr(cached, "FRESH_SECONDS", 0)  # so that all stamps are kept
    file = folder / "one" / "0.png"
    bright, dark = folder.parent / "bright.bmp", folder.parent / "dark.bmp"
    for place, value in ((bright, 200), (dark, 20)):
        Image.new("L", (8, 8), value).save(place)
    file.write_bytes(bright.read_bytes())
    times = file.stat()

    def seen() -> int:
        dataset = image_folder(path=str(folder), image_size=8)
        (image,) = (
            s["image"][s.ids == "one/0.png"] for s in (dataset.train, dataset.validation, dataset.test) if "one/0.png" in s.ids
        )
        return int(image[0, 0, 0, 0])

    assert seen() == 200
    file.write_bytes(dark.read_bytes())
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert seen() == 20


@pytest.mark.parametrize(
    ("parts", "sizes", "splits"),
    [
        (["train", "val", "test"], [20, 20, 20], "as given"),
        (["train", "validation", "test"], [20, 20, 20], "as given"),
        (["train", "test"], [None, None, 20], "test as given, validation 10 % of train by hash"),
        (["train", "val"], [None, None, 20], "val as given is the test set, validation 10 % of train by hash"),
        (["train"], [None, None, None], "60/20/20 by hash of train"),
    ],
)
def test_with_a_split(tmp_path, parts, sizes, splits):
    for part in parts:
        write(tmp_path / "set" / part, {"one": 1, "two": 2})
    dataset = image_folder(path=str(tmp_path / "set"), image_size=8)
    splits_read = (dataset.train, dataset.validation, dataset.test)
    assert all(size in (None, len(split)) for size, split in zip(sizes, splits_read, strict=True))
    assert sum(map(len, splits_read)) == 20 * len(parts)
    assert all(set(split["label"]) == {0, 1} for split in splits_read)
    assert dataset.splits == splits
    assert {name.split("/")[0] for name in dataset.train.ids} == {"train"}
    assert {name.split("/")[0] for name in dataset.test.ids} == {parts[-1] if len(parts) < 3 else "test"}


def test_a_class_may_be_called_train(tmp_path):
    dataset = image_folder(path=str(write(tmp_path / "set", {"train": 1, "car": 2})), image_size=8)
    assert dataset.spec.classes == ("car", "train")


def test_hidden_files_are_passed_over_and_deeper_folders_belong_to_the_class(folder):
    (folder / "one" / ".DS_Store").write_bytes(b"x")
    (folder / "one" / "Thumbs.db").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / "one" / "deep").mkdir()
    Image.new("L", (8, 8)).save(folder / "one" / "deep" / "a.png")
    dataset = image_folder(path=str(folder), image_size=8)
    assert sum(len(s) for s in (dataset.train, dataset.validation, dataset.test)) == 31


def test_kinds_of_images_are_all_made_the_same(tmp_path):
    grey = digits().test["image"][0, 0].repeat(4, 0).repeat(4, 1)
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image = Image.fromarray(grey)
        image.save(tmp_path / "set" / name / "1.png")
        image.convert("P").save(tmp_path / "set" / name / "2.gif")
        image.convert("RGBA").save(tmp_path / "set" / name / "3.webp", lossless=True)
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "set" / name / "4.png")
        wide = np.full((32, 96), 9, np.uint8)
        wide[:, 32:64] = grey
        Image.fromarray(wide).save(tmp_path / "set" / name / "5.bmp")
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(grey[::-1, ::-1].copy()).save(tmp_path / "set" / name / "6.tiff", exif=exif)
    dataset = image_folder(path=str(tmp_path / "set"), image_size=32, fit="crop")
    for split in (dataset.train, dataset.validation, dataset.test):
        assert (split["image"] == grey).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_figures_have_the_whole_image_in_its_own_shape(tmp_path, fit):
    wide = np.arange(8, dtype=np.uint8).repeat(64)[None].repeat(96, 0)  # 512 x 96
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(10):
            exif = Image.Exif()
            exif[0x0112] = 3
            Image.fromarray(10 * wide[:, ::-1]).save(tmp_path / "set" / name / f"{number}.tif", exif=exif)
    dataset = image_folder(path=str(tmp_path / "set"), image_size=16, fit=fit)
    assert dataset.test["image"].shape[1:] == (3, 16, 16)
    shown = dataset.picture("image", 0)
    assert shown.shape == (3, 48, 256)
    assert shown[0, 20, 16::32].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    (tmp_path / "set" / str(dataset.test.ids[0])).write_bytes(b"gone")
    assert np.array_equal(dataset.picture("image", 0), dataset.test["image"][0])


def broken_png(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds no pixels."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a note", "is not an image"),
        (b"", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image"),
        (broken_png(9000, 9999), "has more than 89,478,485 pixels (data.max_pixels)"),
        (broken_png(90_000, 90_000), "has more than 89,478,485 pixels (data.max_pixels)"),
    ],
    ids=["text", "empty", "eps", "large", "huge"],
)
def test_file_that_is_no_image(folder, capsys, content, complaint):
    (folder / "one" / "b c.png").write_bytes(content)
    with pytest.raises(DataError) as error:
        image_folder(path=str(folder))
    assert str(error.value) == (
        f"image_folder: one/b c.png {complaint} ({folder}). Remove it, or skip such files: data.on_error=skip"
    )
    capsys.readouterr()
    for attempt in range(2):
        dataset = image_folder(path=str(folder), image_size=8, on_error="skip")
        assert sum(len(s) for s in (dataset.train, dataset.validation, dataset.test)) == 30
        said = capsys.readouterr().err
        assert f"image_folder: skipped 1 of 31 files: one/b c.png {complaint}\n" in said
        assert ("Decoding 30 images" in said) == (not attempt)  # the file is none of them


def test_truncated_image(folder):
    file = folder / "one" / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"^image_folder: one/0.png is broken: .*truncated"):
        image_folder(path=str(folder))


def test_what_is_left_is_split(folder):
    names = [f"two = 2/{i}.png" for i in (0, 3, 7)]
    for name in names:
        (folder / name).write_bytes(b"no")
    dataset = image_folder(path=str(folder), image_size=8, on_error="skip")
    assert sum(np.bincount(s["label"]) for s in (dataset.train, dataset.validation, dataset.test)).tolist() == [10, 10, 7]
    for split in (dataset.train, dataset.validation, dataset.test):
        assert not set(names) & set(split.ids)
        for image, name in zip(split["image"], split.ids, strict=True):
            assert (np.asarray(Image.open(folder / name)) == image[0]).all()


def test_class_without_a_readable_image(folder):
    for file in (folder / "one").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(DataError, match=r"^image_folder: class 'one' has no readable image \("):
        image_folder(path=str(folder), on_error="skip")


def test_missing_folder_names_the_nearest(folder):
    with pytest.raises(DataError) as error:
        image_folder(path=f"{folder}x")
    assert str(error.value) == f"data.path: no such folder. Received: {folder}x. Did you mean '{folder.name}'?"


def test_folders_that_are_refused(tmp_path, folder):
    def refused(path: Path) -> str:
        with pytest.raises(DataError) as error:
            image_folder(path=str(path))
        return str(error.value)

    file = folder / "one" / "0.png"
    assert refused(file) == f"data.path: must be a folder. Received: {file}"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == (
        f"image_folder: {empty} has no sub-folders. Put images into {empty}/CLASS/, or say where their labels are: "
        f"data.labels=TABLE, or data.label=PATTERN of file names"
    )
    (empty / "cat").mkdir()
    assert refused(empty) == f"image_folder: {empty} must have at least two classes. Received: 'cat'"
    (empty / "dog").mkdir()
    assert refused(empty) == f"image_folder: {empty / 'cat'} has no files. Remove the folder or add images"
    few = write(tmp_path / "few", {"one": 1, "two": 2}, each=2)
    assert refused(few) == ("image_folder: class 'one' must have at least 3 samples, one per split. Received: 2")
    split = tmp_path / "split"
    write(split / "train", {"one": 1, "two": 2})
    write(split / "test", {"one": 1, "tow": 2})
    assert refused(split) == (
        f"image_folder: class 'tow' of {split / 'test'} is not in {split / 'train'} (0.png). Did you mean 'two'?"
    )


def test_file_that_goes_nowhere(folder):
    (folder / "one" / "link.png").symlink_to(folder / "gone.png")
    with pytest.raises(DataError, match=re.escape("image_folder: one/link.png is a broken link")):
        image_folder(path=str(folder))


@pytest.mark.skipif(os.name != "posix", reason="names there are text")
def test_name_that_is_no_text(folder):
    name = os.fsdecode(b"\xff.png")
    Image.new("L", (8, 8)).save(folder / "one" / name)
    dataset = image_folder(path=str(folder), image_size=8)
    ids = np.concatenate([s.ids for s in (dataset.train, dataset.validation, dataset.test)])
    assert r"one/\udcff.png" in ids
    assert "".join(ids).encode()


def test_a_new_image_moves_no_other(folder):
    def homes() -> dict[str, int]:
        dataset = image_folder(path=str(folder), image_size=8)
        return {name: part for part, s in enumerate((dataset.train, dataset.validation, dataset.test)) for name in s.ids}

    before = homes()
    for name in ("one", "two = 2", "drei\"'ß"):
        Image.new("L", (8, 8)).save(folder / name / "-1.png")
    after = homes()
    assert len(after) == len(before) + 3
    assert {name: after[name] for name in before} == before


def test_classes_in_natural_order_and_one_in_test(tmp_path, capsys):
    write(tmp_path / "set" / "train", {"1": 1, "2": 2, "10": 3})
    write(tmp_path / "set" / "Test", {"10": 3})
    dataset = image_folder(path=str(tmp_path / "set"), image_size=8)
    assert dataset.spec.classes == ("1", "2", "10")
    assert (dataset.test["label"] == 2).all()
    assert dataset.refusal.startswith(
        "image_folder: test: 10 of 10 images are in train or validation too, more than data.max_duplicates=0.5: "
    )
    assert image_folder(path=str(tmp_path / "set"), image_size=8, max_duplicates=1).refusal == ""
    said = capsys.readouterr().err
    assert "image_folder: classes only in train, not in Test: 1, 2\n" in said
    assert "image_folder: test: 10 of 10 images are in train or validation too: not unseen\n" in said


def test_a_file_in_two_classes_is_told(folder, capsys):
    shutil.copy(folder / "one" / "0.png", folder / "two = 2" / "copy.png")
    image_folder(path=str(folder), image_size=8)
    said = capsys.readouterr().err
    assert "image_folder: 1 of 31 files are in another class too, such as two = 2/copy.png is one/0.png\n" in said


def test_a_run_with_too_many_duplicates_is_refused(tmp_path, capsys):
    for part in ("train", "test"):
        write(tmp_path / "set" / part, {"one": 1, "two": 2})
    options = ["model=mlp", "data=image_folder", f"data.path={tmp_path / 'set'}", "tracking=none", f"runs={tmp_path / 'runs'}"]
    assert main([*options, "epochs=1"]) == 2
    assert capsys.readouterr().err.endswith("or accept them: data.max_duplicates=1\n")
    assert not (tmp_path / "runs").exists()
    # Drawn by hash, copies are told of, and refused only on request.
    write(tmp_path / "drawn", {"one": 1, "two": 2})
    shutil.copytree(tmp_path / "drawn" / "one", tmp_path / "drawn" / "one" / "copies")
    assert image_folder(path=str(tmp_path / "drawn")).refusal == ""
    assert "images are in train too" in capsys.readouterr().err
    assert "data.max_duplicates=0: " in image_folder(path=str(tmp_path / "drawn"), max_duplicates=0).refusal


def test_labels_and_groups_of_a_table_without_class_folders(tmp_path, capsys):
    test = digits().test
    (tmp_path / "images").mkdir()
    rows = ["name,kind,writer"]
    for i, image in enumerate(test["image"][:60]):
        Image.fromarray(image[0]).save(tmp_path / "images" / f"{i}.png")
        rows.append(f"{i}.png,{'even' if test['label'][i] % 2 == 0 else 'odd'},w{i // 3}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    dataset = image_folder(path=str(tmp_path), label="kind", labels="labels.csv", group="writer", image_size=8)
    splits = (dataset.train, dataset.validation, dataset.test)
    assert sum(map(len, splits)) == 60
    for split in splits:
        for name, target, group in zip(split.ids, split["label"], split.groups, strict=True):
            number = int(Path(name).stem)
            assert dataset.spec.classes[target] == ("even" if test["label"][number] % 2 == 0 else "odd")
            assert group == f"w{number // 3}"
    assert not set(dataset.train.groups) & set(dataset.test.groups)
    assert "labels from labels.csv: files name, labels kind, groups writer" in capsys.readouterr().err
    again = (tmp_path / "labels.csv").read_text().replace("even", "EVEN")
    (tmp_path / "labels.csv").write_text(again)
    found = image_folder(path=str(tmp_path), label="kind", labels="labels.csv", group="writer", image_size=8)
    assert found.spec.classes == ("EVEN", "odd")


def test_what_was_assumed_is_told_every_time_and_kept_for_predictions(folder, capsys):
    Image.new("LA", (8, 8), (9, 100)).save(folder / "one" / "t.png")
    for _ in range(2):
        dataset = image_folder(path=str(folder), image_size=8, background="black")
        line = "image_folder: 1 of 31 images transparent, laid on black (data.background): one/t.png\n"
        assert line in capsys.readouterr().err
    assert dataset.spec.fitted == {"decoding": {"fit": "squash", "background": "black", "value_range": None}}
    Image.new("L", (8, 8), 3).save(folder / "one" / "new.png")  # the others are not decoded again, and told of as before
    image_folder(path=str(folder), image_size=8, background="black")
    said = capsys.readouterr().err
    assert f"Decoding 1 image of {folder} (once); 31 are decoded already\n" in said
    assert "image_folder: 1 of 32 images transparent, laid on black (data.background): one/t.png\n" in said
    with pytest.raises(DataError, match=r"^data.range: must be ascending. Received: \[5, 5\].$"):
        image_folder(path=str(folder), range=(5, 5))


def test_a_folder_whose_name_is_no_text(tmp_path):
    write(tmp_path / "set", {"a": 1, "b": 2})
    os.rename(tmp_path / "set" / "a", os.fsencode(tmp_path / "set") + b"/gr\xfcn")
    assert image_folder(path=str(tmp_path / "set"), image_size=8).spec.classes == ("b", r"gr\udcfcn")
