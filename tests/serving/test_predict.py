"""A trained model in use: files, folders, tables and arrays, from the command line and from Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import dlframe
from dlframe.cli import main
from dlframe.config import load
from dlframe.data.digits import digits
from dlframe.jobs.train import run
from dlframe.types import ConfigError, DataError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short run on the digits."""
    result = run(load(["model=cnn", "epochs=2", "tracking=none", f"runs={tmp_path_factory.mktemp('runs')}"]))
    assert result.folder
    return result.folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the test split, as files that are named in its order."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(digits().test["image"]):
        Image.fromarray(image[0]).save(folder / f"{number:04d}.png")
    return folder


def said(capsys: pytest.CaptureFixture, *arguments: Any) -> tuple[int, str, str]:
    code = main(["predict", *map(str, arguments)])
    return (code, *capsys.readouterr())


def known(trained: Path) -> dict[str, Any]:
    """What the test of the run predicted, in the order of the split."""
    table = pyarrow.parquet.read_table(trained / "predictions.parquet").to_pydict()
    assert table["id"] == digits().test.ids.tolist()
    return table


def test_inputs_are_named_as_data_are(trained, pictures, capsys):
    assert said(capsys, trained, f"data.path={pictures}") == said(capsys, trained, pictures)


def test_files_are_predicted_as_the_test_split_was_to_the_bit(trained, pictures, tmp_path, capsys):
    code, out, error = said(capsys, trained, pictures, f"out={tmp_path / 'p.parquet'}")
    assert (code, error) == (0, "")
    assert out == f"359 predictions in {tmp_path / 'p.parquet'}\n"
    table = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["input"] == [str(path) for path in sorted(pictures.iterdir())]
    for column in ("prediction", "score", "probabilities"):
        assert table[column] == known(trained)[column]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_other_files(ending, trained, pictures, tmp_path, capsys):
    out = tmp_path / f"p.{ending}"
    assert said(capsys, trained / "model", pictures, f"out={out}")[0] == 0
    rows = out.read_text().splitlines()
    if ending == "jsonl":
        assert [json.loads(row)["prediction"] for row in rows] == known(trained)["prediction"]
    else:
        assert rows[0] == "input,prediction,score,probabilities"
        assert [row.split(",")[1] for row in rows[1:]] == known(trained)["prediction"]


def test_the_terminal_shows_the_first_rows(trained, pictures, capsys):
    code, out, _ = said(capsys, trained, pictures, "top=2")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["input", "prediction", "score", "top"]
    assert lines[1].split()[1] == known(trained)["prediction"][0]
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "... 339 more; write all: out=predictions.parquet"


def test_what_cannot_be_read_is_left_out_by_choice(trained, pictures, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a.png").write_bytes((pictures / "0000.png").read_bytes())
    (folder / "b.png").write_bytes((pictures / "0001.png").read_bytes()[:40])
    (folder / "c.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    code, _, error = said(capsys, trained, folder)
    assert (code, error.startswith(f"error: predict: {folder / 'b.png'} is ")) == (2, True)
    assert error.endswith("Skip such files: on_error=skip\n")
    code, out, error = said(capsys, trained, folder, "on_error=skip")
    assert (code, len(out.splitlines())) == (0, 2)
    assert error.splitlines()[-1] == "skipped: 2 of 3"


def test_what_is_done_to_images_is_told(trained, tmp_path, capsys):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "1 large.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "2 color.jpg")
    Image.new("RGBA", (8, 8)).save(tmp_path / "3 color.png")
    assert said(capsys, trained, tmp_path)[2].splitlines() == [
        "resized and cropped at the center to 8x8: 1 input, 1 large.png (20x30)",
        "resized to 8x8: 1 input, 2 color.jpg (16x16)",
        "converted to gray: 2 inputs, such as 2 color.jpg (RGB)",
        "transparent, laid on white (data.background): 1 input, 3 color.png",
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("prices.csv", b"Date,Close\n2020-01-01,3\n", "is not an image. The model takes images (AVIF, BMP, GIF,"),
        ("empty.png", b"", "is empty"),
        ("cut.npz", b"PK\x03\x04 and no more", "is not a file of arrays: "),
        ("empty.npy", b"", "is not a file of arrays: "),
    ],
)
def test_files_of_the_wrong_kind(name, content, message, trained, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    code, out, error = said(capsys, trained, tmp_path / name)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: predict: {tmp_path / name}")
    assert message in error
    assert len(error.splitlines()) == 1
    assert "nothing to predict" in said(capsys, trained, tmp_path / name, "on_error=skip")[2]


def test_images_of_too_many_pixels_are_refused_as_in_training(trained, pictures, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    assert "has more than 63 pixels (data.max_pixels). Skip" in said(capsys, trained, pictures / "0000.png")[2]


def test_names_that_are_no_text_and_files_of_the_system(trained, pictures, tmp_path, capsys):
    odd = os.path.join(os.fsencode(tmp_path), b"\xff\x1b.png")
    with open(odd, "wb") as file:
        file.write((pictures / "0000.png").read_bytes())
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "one.png").write_bytes((pictures / "0001.png").read_bytes())
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path.parent / f"{tmp_path.name}.{ending}"
        assert said(capsys, trained, tmp_path, f"out={out}")[0] == 0
    names = pyarrow.parquet.read_table(out)["input"].to_pylist()
    assert names == [str(tmp_path / "deeper" / "one.png"), f"{tmp_path}/\\udcff\\x1b.png"]


def test_the_same_input_twice(trained, pictures, capsys):
    file = pictures / "0000.png"
    _, one, two = said(capsys, trained, file, file)[1].splitlines()
    assert one == two


@pytest.mark.parametrize("fit", ["", "crop", "pad", "squash"])
def test_photos_are_fitted_as_in_training_to_the_bit(fit, tmp_path):
    """Windows of two photos, wide and tall ones; without a choice, squashed."""
    random = np.random.default_rng(0)
    for name, photo in zip(("temple", "dahlia"), load_sample_images().images, strict=True):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            height, width = random.integers(24, 200, 2)
            top, left = random.integers(0, 200, 2)
            window = Image.fromarray(photo[top : top + height, left : left + width])
            window.save(tmp_path / "photos" / name / f"{number}.jpg", quality=95)
    options = [
        "data=image_folder",
        f"data.path={tmp_path / 'photos'}",
        "data.image_size=16",
        *([f"data.fit={fit}"] * bool(fit)),
    ]
    result = run(load(["model=mlp", "epochs=1", "tracking=none", "figures=none", f"runs={tmp_path}", *options]))
    table = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    files = [tmp_path / "photos" / name for name in table["id"]]
    assert dlframe.load(result.folder).predict(files)["probabilities"].tolist() == table["probabilities"]
    assert json.loads((result.folder / "model" / "spec.json").read_text())["fitted"]["decoding"]["fit"] == (fit or "squash")


@pytest.mark.parametrize("options", [["trainer.precision=64-true"], ["trainer.precision=bf16-mixed"], ["batch_size=12"]])
def test_the_bits_are_those_of_the_test_in_other_formats_and_batches(options, pictures, tmp_path):
    result = run(load(["model=cnn", "epochs=1", "tracking=none", f"runs={tmp_path}", *options]))
    assert result.folder
    assert dlframe.load(result.folder).predict(pictures)["probabilities"].tolist() == known(result.folder)["probabilities"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "predict: requires a run directory and inputs. Try: python -m dlframe predict runs/... photo.png"),
        (("RUN",), "predict: requires a run directory and inputs. Try: python -m dlframe predict runs/... photo.png"),
        (("nothing", "PICTURE"), "'nothing' has no trained model (not the directory of a finished run)."),
        (
            ("RUN", "PICTURE", "onerror=skip"),
            "predict: 'onerror' is neither an option nor a file. Did you mean 'on_error'? "
            "See: python -m dlframe predict --help",
        ),
        (("RUN", "PICTURE", "top=1", "top=2"), "top: must be given once. Received: top twice. Try: top=2"),
        (("RUN", "PICTURE", "top=0"), "top: must be int >= 1. Received: 0."),
        (("RUN", "PICTURE", "out=p.xls"), "out: must end in .parquet, .jsonl, .csv, .json. Received: 'p.xls'."),
        (
            ("RUN", "PICTURE", "out=there.csv"),
            "out: must not exist. Received: 'there.csv'. Choose another name, or remove the file.",
        ),
        (("RUN", "PICTURE", "out=no/folder.csv"), "out: cannot write 'no/folder.csv': No such file or directory."),
        (("RUN", "empty"), "predict: nothing to predict in empty."),
    ],
)
def test_what_is_typed_wrong(arguments, message, trained, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").touch()
    Path("empty").mkdir()
    places = {"RUN": trained, "PICTURE": pictures / "0000.png"}
    assert said(capsys, *(places.get(argument, argument) for argument in arguments)) == (2, "", f"error: {message}\n")
    assert Path("there.csv").read_bytes() == b""
    assert not list(Path().glob(".*part"))


def test_arrays(trained, tmp_path, capsys):
    test = digits().test["image"]
    np.save(tmp_path / "test.npy", test)
    np.savez(tmp_path / "test.npz", image=test)
    np.savez(tmp_path / "unnamed.npz", test)
    np.savez(tmp_path / "labelled.npz", image=test, label=digits().test["label"])
    np.savez(tmp_path / "other.npz", picture=test)
    np.save(tmp_path / "flat.npy", test.reshape(-1, 64))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "test.npy").read_bytes()[:50])
    for name in ("test.npy", "test.npz", "unnamed.npz", "labelled.npz"):
        assert said(capsys, trained, tmp_path / name, f"out={tmp_path / name}.jsonl")[0] == 0
        rows = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
        assert [row["score"] for row in rows] == known(trained)["score"]
    for name, message in (
        ("other.npz", "must have an array 'image'. Received: picture."),
        ("flat.npy", "must be numbers (samples, 1, 8, 8). Received: uint8 (359, 64)."),
        ("cut.npy", "is not a file of arrays"),
    ):
        assert message in said(capsys, trained, tmp_path / name)[2]


# --- Python


def test_a_model_in_python(trained, pictures):
    model = dlframe.load(trained)
    table = known(trained)
    test = digits().test["image"]
    outputs = model.predict(test)
    assert outputs["prediction"].tolist() == table["prediction"]
    assert outputs["probabilities"].tolist() == table["probabilities"]
    assert model.predict(pictures)["probabilities"].tolist() == table["probabilities"]
    assert model.predict([pictures / "0003.png", str(pictures / "0001.png")])["prediction"].tolist() == [
        table["prediction"][3],
        table["prediction"][1],
    ]
    assert model.metrics["accuracy"] == np.mean(np.array(table["prediction"]) == table["target"])
    assert (model.config.title, type(model.task).__name__, model.spec.classes[3]) == ("cnn-digits", "Classification", "3")
    with pytest.raises(DataError, match=r"^inputs: must be numbers \(samples, 1, 8, 8\)\. Received: uint8 \(8, 8\)\.$"):
        model.predict(test[0, 0])
    with pytest.raises(DataError, match=r"^predict: no such file or folder: "):
        model.predict("nothing.png")
    with pytest.raises(DataError, match=r"^predict: an input must be the name of a file or folder\. Received: ''\.$"):
        model.predict("")  # not the current directory
    with pytest.raises(ConfigError, match="has no trained model"):
        dlframe.load(pictures)
    assert model.predict(pictures)["input"] == [str(path) for path in sorted(pictures.iterdir())]


def test_arrays_in_python_are_converted_or_refused(trained):
    """Never predicted from as they are: other integers would not be scaled, and the largest of NaN would be a class."""
    model, images = dlframe.load(trained), digits().test["image"]
    expected = model.predict(images)["probabilities"].tolist()
    for same in (images.astype(np.int64), images.astype(np.float64), images.tolist()):
        assert model.predict(same)["probabilities"].tolist() == expected
    assert model.predict(images[0])["prediction"].shape == (1,)
    for wrong, message in (
        (images / 255, "inputs: 'image' must be uint8. Received: float64. Convert images from 0 to 1 by"),
        ((images > 8) * 1.0, "inputs: 'image' must be uint8. Received: float64. Convert images from 0 to 1 by"),
        (images > 128, "inputs: 'image' must be uint8. Received: bool."),
        (images.astype(int) * 3, "inputs: 'image' must be from 0 to 255. Received: 0 to 765."),
        (images[:0], "inputs: must have at least one sample. Received: none."),
    ):
        with pytest.raises(DataError, match=f"^{re.escape(message)}"):
            model.predict(wrong)


def test_a_run_that_has_not_ended(trained, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match=f"has no trained model yet.* resume={re.escape(str(folder))}$"):
        dlframe.load(folder)


def test_a_run_in_python(tmp_path):
    result = dlframe.run("model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path}")
    assert dlframe.load(str(result.folder)).metrics == result.metrics
    with pytest.raises(ConfigError, match=r"^model=cnnn: no such model"):
        dlframe.check("model=cnnn")
    assert dlframe.check("model=cnn", "model.width=7").values["model"]["width"] == 7


def test_the_package_imports_nothing_heavy():
    code = "import sys, dlframe; dlframe.check('model=cnn'); print(*({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_a_forecast_of_a_file(tmp_path, capsys):
    days = np.datetime64("2020-01-01") + np.arange(100)
    rows = [f"{day},{100 + i}" for i, day in enumerate(days)]
    file = tmp_path / "prices.csv"
    file.write_text("\n".join(["Date,Close", *rows]))
    options = ["task=forecasting", "model=dlinear", "data=sp500", f"data.path={file}", "data.window=7", "data.horizon=3"]
    result = run(load([*options, "epochs=1", "tracking=none", f"runs={tmp_path / 'runs'}"]))
    capsys.readouterr()
    code, out, _ = said(capsys, result.folder, file, "every=true", f"out={tmp_path / 'p.jsonl'}")
    assert (code, out) == (0, f"94 predictions in {tmp_path / 'p.jsonl'}\n")
    rows_out = [json.loads(row) for row in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert list(rows_out[0]) == ["input", "prediction_1", "prediction_2", "prediction_3"]
    found = [[*row.values()][1:] for row in rows_out]
    table = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    # The window of row i ends a day before the test sample whose first future value is at i + 7.
    first = int((np.datetime64(table["id"][0]) - days[0]).astype(int)) - 7
    np.testing.assert_allclose(found[first : first + len(table["id"])], table["prediction"], rtol=1e-6)
    prices = pandas.read_csv(file)
    prices.to_parquet(tmp_path / "prices.parquet")
    prices[["Close"]].to_csv(tmp_path / "undated.csv", index=False)
    model = dlframe.load(result.folder)
    for other, last in (("prices.csv", "2020-04-09"), ("prices.parquet", "2020-04-09"), ("undated.csv", "row 100")):
        outputs = model.predict(tmp_path / other)
        assert outputs["input"] == [f"{tmp_path / other} to {last}"]
        assert outputs["prediction"].shape == (1, 3)
        np.testing.assert_allclose(outputs["prediction"][0], found[-1], rtol=1e-6)
    assert said(capsys, result.folder, tmp_path / "undated.csv")[2].splitlines() == [
        "no column of times: rows are read in chronological order: 1 input, undated.csv",
        "used the last 7 rows (every=true predicts from every window): 1 input, undated.csv (100 rows)",
    ]
    Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    assert (
        "photo.png: is a PNG image. Save the table as CSV or Parquet."
        in (said(capsys, result.folder, tmp_path / "photo.png")[2])
    )
    file.write_text("\n".join(["Date,Close", *rows[:5]]))
    assert said(capsys, result.folder, file)[2].startswith(f"error: predict: {file} must have at least 7 rows. Received: 5.")
