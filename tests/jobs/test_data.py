"""Data sets are kept from run to run: until a file changes, and no run can change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import dlframe
from dlframe.config import load
from dlframe.data import stocks
from dlframe.data.digits import digits
from dlframe.jobs import data
from dlframe.jobs.data import check_classes, load_data, sized
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.storage import stamps
from dlframe.types import DataError


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 0)
    data._kept.clear()


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    write(tmp_path / "prices.csv", 300)
    return tmp_path / "prices.csv"


def write(file: Path, days: int) -> None:
    rows = [f"{day},{100 + i % 7}" for i, day in enumerate(np.arange("2001-01-01", days, dtype="datetime64[D]"))]
    file.write_text("\n".join(["Date,Close", *rows, ""]))


def forecast(prices: Path, *more: str):
    return load(["task=forecasting", "model=dlinear", "data=sp500", f"data.path={prices}", "data.window=10", *more])


def test_equal_options_share_arrays(prices):
    first, second = load_data(forecast(prices)), load_data(forecast(prices, "seed=3", "optimizer.lr=0.1"))
    assert first.train["window"] is second.train["window"]
    assert first.fingerprint == second.fingerprint
    assert load_data(forecast(prices, "data.horizon=2")).train["future"].shape[1] == 2


def test_a_changed_file_is_read_again(prices):
    before = load_data(forecast(prices))
    write(prices, 301)
    after = load_data(forecast(prices))
    assert len(after.test) == len(before.test) + 1 or len(after.train) == len(before.train) + 1
    assert after.fingerprint != before.fingerprint


def test_a_relative_path_is_of_the_current_folder(prices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = load_data(forecast(Path("prices.csv")))
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "prices.csv", 400)
    monkeypatch.chdir(tmp_path / "other")
    assert load_data(forecast(Path("prices.csv"))).fingerprint != before.fingerprint


def test_a_run_cannot_change_the_data_of_another():
    config = load(["model=mlp"])
    first = load_data(config)
    for split in (first.train, first.validation, first.test):
        for array in (*split.columns.values(), split.ids):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[1]
    first.train.columns.clear()
    first.spec.fitted["x"] = 1
    first.splits = ""
    second = load_data(config)
    assert second.fingerprint == digits().fingerprint
    assert (second.spec.fitted, second.splits) == ({}, "stratified 60/20/20")
    assert len(second.train["image"]) == len(second.train)


def test_dropped_labels_are_of_their_run():
    some = load_data(load(["model=mlp", "labels_per_class=2"]))
    assert some.train.labelled is not None
    assert some.train.labelled.sum() == 20
    every = load_data(load(["model=mlp"]))
    assert every.train.labelled is None
    assert every.fingerprint != some.fingerprint


@pytest.mark.parametrize("options", [["model=gan"], ["model=mlp", "augmentation=[crop,flip,erasing]"], ["model=lda"]])
def test_data_are_the_same_after_a_run(options, tmp_path):
    """What is hashed anew, since memory may be changed past NumPy."""
    short = ["epochs=1", "trainer.limit_batches=2", "tracking=none", "figures=none", f"runs={tmp_path}"]
    config = load([*options, *short])
    before = load_data(config)
    run(config, pending=[])
    after = load_data(config)
    assert after.train["image"] is before.train["image"]
    del after.fingerprint
    assert after.fingerprint == before.fingerprint == digits().fingerprint


def test_data_of_unknown_files_are_read_again(monkeypatch):
    monkeypatch.setitem(load(["model=mlp"]).entry("data").facts, "files", ("any",))
    assert load_data(load(["model=mlp"])).train["image"] is not load_data(load(["model=mlp"])).train["image"]
    assert not data._kept


def test_a_fresh_file_is_read_again(prices, monkeypatch):
    monkeypatch.setattr(stamps, "FRESH_SECONDS", 60)
    assert load_data(forecast(prices)).train["window"] is not load_data(forecast(prices)).train["window"]


def test_what_is_kept_is_bounded(prices, monkeypatch):
    size = data._size(load_data(forecast(prices)))
    data._kept.clear()
    monkeypatch.setattr(data, "LARGEST", 2.5 * size)
    for window in (10, 11, 10, 9):  # that of 11 is the one that is longest unused
        load_data(forecast(prices, f"data.window={window}"))
    assert [kept.spec.input.shape[0] for kept in data._kept.values()] == [10, 9]
    monkeypatch.setattr(data, "LARGEST", size / 2)
    load_data(forecast(prices, "data.window=12"))
    assert len(data._kept) == 2
    monkeypatch.setattr(data, "LARGEST", 1e9)
    monkeypatch.setattr(data, "MOST", 2)
    load_data(forecast(prices, "data.window=8"))
    assert [kept.spec.input.shape[0] for kept in data._kept.values()] == [9, 8]


def test_a_file_that_is_gone_is_told(prices):
    load_data(forecast(prices))
    prices.unlink()
    with pytest.raises(Exception, match="prices") as told:
        load_data(forecast(prices))
    assert type(told.value) is stocks.DataError


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("model=cnn", None),
        ("model=backbone", 64),
        ("model=backbone model.weights=package", 224),
        ("model=backbone model.weights=package model.image_size=96", 96),
        ("model=backbone model.weights=package data.image_size=100", 100),
    ],
)
def test_the_model_is_asked_for_the_size_of_images(options, size):
    config = sized(load(["data=image_folder", "data.path=photos", *options.split()]))
    assert config.values["data"]["image_size"] == size


def test_a_run_with_pretrained_weights_is_tested_at_their_size(tmp_path, monkeypatch, capsys):
    """In data of another size, which the model resizes: the weights are not read again, and their size is kept."""
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pt")
    model = ["model=backbone", "model.architecture=test_resnet", f"model.weights={tmp_path / 'w.pt'}"]
    options = [*model, "data=image_folder", f"data.path={tmp_path / 'photos'}", "epochs=1", "tracking=none", "figures=none"]
    for more, shape in (([], "3x160x160"), (["data.image_size=32"], "3x32x32")):
        result = run(load([*options, *more, f"runs={tmp_path / 'runs'}"]))
        assert f"; image {shape}, 2 classes (a, b); " in capsys.readouterr().out
        assert result.folder
        assert evaluate_run(result.folder).metrics == result.metrics
        assert dlframe.load(result.folder).task.model.image_size == 160


@pytest.mark.parametrize(
    ("frauds", "options", "message"),
    [
        (
            [1, 2, 99],
            [],
            "validation split must have rows of two classes for the monitor average_precision and task.threshold=f1",
        ),
        (
            [99],
            ["task.headline=accuracy", "task.threshold=argmax"],
            "train split must have rows of two classes for a classifier",
        ),
        ([1, 2, 99], ["task.headline=accuracy", "task.threshold=argmax"], ""),
        ([1, 2, 70], [], ""),
    ],
)
def test_a_split_of_one_class_is_refused_where_it_decides(
    tmp_path: Path, frauds: list[int], options: list[str], message: str
) -> None:
    """Of 100 payments in the order of time, 60 are for training and 20 each for validation and test."""
    rows = [f"2024-01-{1 + i // 24:02}T{i % 24:02}:00,{i % 7},{int(i in frauds)}" for i in range(100)]
    (tmp_path / "paid.csv").write_text("\n".join(["at,amount,is_fraud", *rows]))
    own = ["data=table", f"data.path={tmp_path / 'paid.csv'}", "data.target=is_fraud", "data.time=at"]
    config = load(["task=fraud_detection", *own, *options])
    dataset = load_data(config)
    if not message:
        check_classes(config, dataset)
        return
    with pytest.raises(DataError, match=f"{message}. Received: [26]0 rows, all of '0'"):
        check_classes(config, dataset)
