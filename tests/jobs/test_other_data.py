"""A finished run is scored on its own data from elsewhere, and on other data."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from dlframe.cli import main
from dlframe.config import load
from dlframe.data.digits import digits
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.types import DataError, Result

CLASSES = {"one": 1, "two": 2, "zwei": 7}


def write(folder: Path, classes: dict[str, int], start: int, stop: int) -> Path:
    """Digits `start` to `stop` of each class as PNG files."""
    train = digits().train
    for name, label in classes.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(train["image"][train["label"] == label][start:stop]):
            Image.fromarray(image[0]).save(folder / name / f"{i}.png")
    return folder


@dataclass
class Trained:
    """A run on the folder "photos" beside it, given by a relative path."""

    place: Path
    result: Result

    @property
    def folder(self) -> Path:
        assert self.result.folder
        return self.result.folder.absolute() if self.result.folder.is_absolute() else self.place / self.result.folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    write(place / "photos", CLASSES, 0, 30)
    options = ["model=mlp", "data=image_folder", "data.path=photos", "data.image_size=8", "data.color_mode=grayscale"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLFRAME_DATA", str(place / "cache"))
        patch.chdir(place)
        return Trained(place, run(load([*options, "epochs=5", "tracking=none", "figures=none"])))


@pytest.fixture(autouse=True)
def cache(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFRAME_DATA", str(trained.place / "cache"))


def test_relative_paths_are_those_of_the_run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "photos", {"one": 5, "two": 6}, 0, 4)  # others of the same name where the test is started
    monkeypatch.chdir(tmp_path)
    assert evaluate_run(trained.folder).metrics == trained.result.metrics


def test_data_that_were_moved(trained: Trained, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    described["files"]["path"]["place"] = str(tmp_path / "photos")  # which is not there any more
    (tmp_path / "run" / "data.json").write_text(json.dumps(described))
    monkeypatch.chdir(tmp_path)
    assert main(["test", "run"]) == 2
    assert "If the data were moved: python -m dlframe test run data.path=FOLDER" in capsys.readouterr().err
    moved = shutil.copytree(trained.place / "photos", tmp_path / "pictures")
    assert main(["test", "run", "data.path=pictures"]) == 0
    assert f"\nthe same data as the run's: fingerprint {described['fingerprint']}\n" in capsys.readouterr().out
    (moved / "note.txt").write_text("moved")  # nothing that is read
    assert evaluate_run(tmp_path / "run", changed=["data.path=pictures"]).metrics == trained.result.metrics
    assert not [*(tmp_path / "run").glob("predictions-*")]


def test_other_data_are_scored_with_the_classes_of_the_run(trained: Trained, tmp_path: Path, capsys) -> None:
    """Their classes would have other numbers in a data set of their own."""
    before = (trained.folder / "predictions.parquet").read_bytes()
    folder = write(tmp_path / "new", {"two": 2, "zwei": 7}, 30, 70)
    assert main(["test", str(trained.folder), f"data.path={folder}"]) == 0
    out = capsys.readouterr().out
    assert "mlp on image_folder: 80 samples to test; image 1x8x8, 3 classes (one, two, zwei); split all as test" in out
    assert "\n80 samples, all scored; the run was trained on " in out
    assert "1 of 3 classes have no test sample: one" in out
    assert "unseen" not in out
    assert "not known" not in out
    (file,) = trained.folder.glob("predictions-*.parquet")
    assert f"\npredictions {file}\n" in out
    (classes,) = trained.folder.glob("classes-*.csv")
    assert f"\nclasses {classes}\n" in out
    assert classes.read_text(encoding="utf-8").splitlines()[:2] == ["class,precision,recall,f1,samples", "one,,,,0"]
    assert re.search(r"\none +undefined +undefined +undefined +0\n", out)
    field = pyarrow.parquet.read_schema(file).field("probabilities")
    assert json.loads(field.metadata[b"names"]) == ["one", "two", "zwei"]
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*.png"))
    assert all(row["target"] == row["id"].split("/")[0] for row in rows)
    right = np.mean([row["prediction"] == row["target"] for row in rows])
    assert right > 0.9
    assert f"test accuracy {100 * right:.2f} % (" in out
    assert (trained.folder / "predictions.parquet").read_bytes() == before


@pytest.mark.parametrize("parts", [["test"], ["train", "Test"], ["train", "val"], ["train"]])
def test_of_splits_the_test_split_is_scored(parts: list[str], trained: Trained, tmp_path: Path, capsys) -> None:
    for i, part in enumerate(parts):
        write(tmp_path / "new" / part, {"one": 1, "two": 2}, 10 * i, 10 * i + 5 + i)
    result = evaluate_run(trained.folder, changed=[f"data.path={tmp_path / 'new'}"])
    assert result.samples == 10 + 2 * (len(parts) - 1)
    said = capsys.readouterr().err
    assert (f"image_folder: left out train (10 files): {parts[-1]} is scored" in said) == (len(parts) > 1)


def test_a_single_class_and_an_empty_one(trained: Trained, tmp_path: Path) -> None:
    folder = write(tmp_path / "new", {"zwei": 7}, 30, 33)
    (folder / "one").mkdir()
    result = evaluate_run(trained.folder, changed=[f"data.path={folder}"])
    assert result.samples == 3
    assert result.notes == ["2 of 3 classes have no test sample: one, two"]


def test_labels_of_other_data_in_a_table(trained: Trained, tmp_path: Path) -> None:
    folder = write(tmp_path / "new", {"pictures": 7}, 30, 34)
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,zwei\n" for i in range(4)))
    assert evaluate_run(trained.folder, changed=[f"data.path={folder}"]).samples == 4


def test_what_cannot_be_scored(trained: Trained, tmp_path: Path, capsys) -> None:
    def refused(*options: str) -> str:
        assert main(["test", str(trained.folder), *options]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    write(tmp_path / "new", {"one": 1, "tow": 2}, 0, 3)
    assert refused(f"data.path={tmp_path / 'new'}") == (
        "error: image_folder: 'tow' (tow/0.png) is not a class of the run: one, two, zwei. Did you mean 'two'?"
    )
    (tmp_path / "empty" / "one").mkdir(parents=True)
    assert refused(f"data.path={tmp_path / 'empty'}") == f"error: image_folder: {tmp_path / 'empty'} has no files to score"
    write(tmp_path / "good", {"one": 1}, 0, 3)
    size = refused(f"data.path={tmp_path / 'good'}", "data.image_size=9")
    assert size == (
        "error: data=image_folder: 'image' must have samples of shape (1, 8, 8). Received: (1, 9, 9) (in the train split)."
    )
    assert refused("data.pth=x").startswith("error: ")
    assert refused("data=digits").startswith("error: data: no such option.")


@pytest.mark.parametrize(
    "files",
    [
        '{"path": {"place": "photos", "files": 1, "bytes": 1}}',
        '{"path": {"place": 5, "files": 1, "bytes": 1}}',
        '{"path": {"place": "/\\u0000", "files": 1, "bytes": 1}}',
        '{"path": {"place": "/", "files": 1e999, "bytes": 1}}',
        '{"path": {"place": "/"}}',
        "[1]",
        "1",
    ],
)
def test_places_in_a_run_of_somebody_else(files: str, trained: Trained, tmp_path: Path, capsys) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    text = json.dumps({**described, "files": "HERE"}).replace('"HERE"', files)
    (tmp_path / "run" / "data.json").write_text(text)
    assert main(["test", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'run'}: is damaged: ")


def test_a_place_that_no_file_system_takes(trained: Trained, tmp_path: Path, capsys, monkeypatch) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    described["files"]["path"]["place"] = "/" + 5000 * "x"
    (tmp_path / "run" / "data.json").write_text(json.dumps(described))
    monkeypatch.chdir(tmp_path)
    assert main(["test", "run"]) == 2
    assert "If the data were moved: " in capsys.readouterr().err


def test_training_samples_among_others_are_told(trained: Trained, tmp_path: Path, capsys) -> None:
    """All 90 images of the run under other names, and 10 new ones."""
    folder = write(tmp_path / "new", CLASSES, 0, 30)
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.rename(file.with_name(f"x{number}.png"))
    write(tmp_path / "more", {"one": 1}, 40, 50)
    for file in (tmp_path / "more" / "one").iterdir():
        file.rename(folder / "one" / file.name)
    options = [f"data.path={folder}"]
    assert evaluate_run(trained.folder, changed=options).samples == 100
    train = json.loads((trained.folder / "data.json").read_text())["train"]
    assert f"\n{train} of 100 samples are training samples of the run: not unseen\n" in capsys.readouterr().out
    shutil.copytree(trained.folder, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    del described["seen"], described["files"]  # as an earlier version wrote it
    (tmp_path / "run" / "data.json").write_text(json.dumps(described))
    assert evaluate_run(tmp_path / "run", changed=options).samples == 100
    assert "whether the run was trained on some of these samples is not known" in capsys.readouterr().out


def test_a_data_set_that_reads_no_others(tmp_path: Path) -> None:
    """Rows of a data set of its own are those of the run: it takes no specification."""
    options = ["task=fraud_detection", "data=synthetic_fraud", "model=tabular_logistic", "data.rows=2000"]
    result = run(load([*options, "epochs=1", "tracking=none", "figures=none", f"runs={tmp_path}"]))
    assert result.folder
    assert evaluate_run(result.folder, changed=["data.rows=2000"]).metrics == result.metrics
    with pytest.raises(DataError, match=r"^data=synthetic_fraud: reads no other data than those of its run: "):
        evaluate_run(result.folder, changed=["data.rows=2500"])


def test_other_prices(tmp_path: Path, capsys) -> None:
    """Of an index, all windows of another table are scored, with the errors of the naive forecast beside them."""
    for name, days in (("a", 300), ("b", 320)):
        rows = [f"{day},{100 + i % 7}" for i, day in enumerate(np.arange("2001-01-01", days, dtype="datetime64[D]"))]
        (tmp_path / f"{name}.csv").write_text("\n".join(["Date,Close", *rows, ""]))
    options = ["task=forecasting", "model=dlinear", "data=sp500", f"data.path={tmp_path / 'a.csv'}", "data.window=10"]
    result = run(load([*options, "epochs=1", "tracking=none", "figures=none", f"runs={tmp_path}"]))
    assert result.folder
    shutil.move(tmp_path / "a.csv", tmp_path / "c.csv")
    again = evaluate_run(result.folder, changed=[f"data.path={tmp_path / 'c.csv'}"])
    assert again.metrics == pytest.approx(result.metrics, rel=0, nan_ok=True)
    other = evaluate_run(result.folder, changed=[f"data.path={tmp_path / 'b.csv'}"])
    assert other.samples == 310
    assert other.baseline[1]["mae"] == pytest.approx(np.mean([6 if i % 7 == 0 else 1 for i in range(10, 320)]))
    assert "other data than the run's" in capsys.readouterr().out
