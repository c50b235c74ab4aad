"""Data with anomalies: splits, masks, windows and what is refused."""

import gzip
import shutil

import numpy as np
import pytest
from PIL import Image

from dlframe.contracts.samples import build_data, inspected, labeled_steps, measurements
from dlframe.data.anomalies import COLUMNS, shuttle, unlabeled_table
from dlframe.data.anomaly_images import anomaly_folder, scratched_digits
from dlframe.data.anomaly_series import anomaly_series, planted_events
from dlframe.registry import GROUPS
from dlframe.types import DataError


def test_shuttle_is_split_as_published():
    """Rows and sums of docs/anomaly_detection.md, of which peer libraries were given the same."""
    data = build_data(GROUPS["data"].get("shuttle"), {"contaminated": True})
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [29_457, 9_819, 9_821]
    assert [int(part["target"].sum()) for part in parts] == [2_106, 702, 703]
    normal = data.validation["numbers"][data.validation["target"] == 0]
    assert [data.train["numbers"].sum(), normal.sum(), data.test["numbers"].sum()] == [7_899_369, 2_361_170, 2_633_612]
    assert data.test.ids[:1].tolist() + data.test.ids[-1:].tolist() == [5, 49_094]
    assert not data.train.labelled.any()


def rows_of_shuttle(path, rows):
    with gzip.open(path, "wt", encoding="ascii") as file:
        file.write(",".join(COLUMNS) + "\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n")
    return str(path)


def test_clean_training_rows_are_standardized_by_themselves(tmp_path):
    random = np.random.default_rng(0)
    rows = [[*random.integers(0, 90, 9), int(i % 10 == 0)] for i in range(100)]
    data = shuttle(path=rows_of_shuttle(tmp_path / "s.csv.gz", rows))
    assert [len(split) for split in (data.train, data.validation, data.test)] == [54, 20, 20]
    assert [int(split["target"].sum()) for split in (data.train, data.validation, data.test)] == [0, 2, 2]
    assert data.train.labelled is None
    assert data.spec.input.mean == pytest.approx(data.train["numbers"].mean(0))
    assert data.spec.input.std == pytest.approx(data.train["numbers"].std(0))
    for bad, message in ((rows[:20], "each in 5 rows or more"), ([[*rows[0][:9], 2], *rows], "must be 0 or 1")):
        with pytest.raises(DataError, match=message):
            shuttle(path=rows_of_shuttle(tmp_path / "bad.csv.gz", bad))
    (tmp_path / "text.csv.gz").write_text("no gzip")
    with pytest.raises(DataError, match=r"is not shuttle\.csv\.gz"):
        shuttle(path=str(tmp_path / "text.csv.gz"))


def test_rows_without_labels_are_all_normal(capsys):
    data = unlabeled_table(path=str(measurements()))
    assert not any(split["target"].any() for split in (data.train, data.validation, data.test))
    assert "no metric is defined" in capsys.readouterr().err
    assert {"numbers", "categories"} == set(data.spec.inputs)


@pytest.fixture
def product(tmp_path, monkeypatch):
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    return shutil.copytree(inspected(), tmp_path / "product")


def test_images_of_defects_have_their_masks(product):
    data = anomaly_folder(path=str(product), image_size=24, color_mode="grayscale")
    assert data.spec.classes == ("good", "spot")
    assert len(data.train) + len(data.validation) == 40
    assert not data.train["mask"].any()
    assert (data.test["mask"].any((1, 2, 3)) == (data.test["label"] == 1)).all()
    i = data.test.ids.tolist().index("test/spot/44.png")
    expected = np.asarray(Image.open(product / "ground_truth" / "spot" / "44_mask.png"))
    np.testing.assert_array_equal(data.test["mask"][i, 0] * 255, expected)
    np.testing.assert_array_equal(data.test["image"][i, 0], np.asarray(Image.open(product / "test" / "spot" / "44.png")))


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_margins_are_no_anomaly_and_figures_have_the_whole_image(product, fit):
    """A wide image, of which the middle third is anomalous: 8 x 8 pixels of 24 x 24, or a third, or all."""
    for folder in ("test", "ground_truth"):
        shutil.rmtree(product / folder / "spot")
        (product / folder / "spot").mkdir()
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(product / "test" / "spot" / "0.png")
    Image.fromarray(wide).save(product / "ground_truth" / "spot" / "0_mask.png")
    data = anomaly_folder(path=str(product), image_size=24, color_mode="grayscale", fit=fit)
    i = data.test.ids.tolist().index("test/spot/0.png")
    assert data.test["mask"][i].sum() == {"pad": 8 * 8, "squash": 8 * 24, "crop": 24 * 24}[fit]
    assert np.array_equal(data.picture("image", i), wide[None])


def test_another_image_moves_no_other_between_splits(product):
    before = anomaly_folder(path=str(product))
    shutil.copy(product / "train" / "good" / "3.png", product / "train" / "good" / "new.png")
    after = anomaly_folder(path=str(product))
    assert set(before.train.ids) <= set(after.train.ids)
    assert set(before.validation.ids) <= set(after.validation.ids)


def test_masks_may_be_missing_altogether_but_not_of_one_image(product, capsys):
    (product / "ground_truth" / "spot" / "44_mask.png").unlink()
    with pytest.raises(DataError, match=r"44.png has no mask: must be .*44_mask.png.*data.masks=none"):
        anomaly_folder(path=str(product))
    assert set(anomaly_folder(path=str(product), masks="none").spec.targets) == {"label"}
    shutil.rmtree(product / "ground_truth")
    assert set(anomaly_folder(path=str(product)).spec.targets) == {"label"}
    assert "no masks: no metrics by pixel" in capsys.readouterr().err


def test_other_folders_and_broken_images_are_refused(product, tmp_path):
    with pytest.raises(DataError, match="must be a folder"):
        anomaly_folder(path=str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="must have the folders train/good, test/good and test/DEFECT"):
        anomaly_folder(path=str(product / "train"))
    (product / "train" / "good" / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"train/good/0.png .*Remove or replace it"):
        anomaly_folder(path=str(product))
    (product / "train" / "cracked").mkdir()
    with pytest.raises(DataError, match=r"must have one folder, of normal images. Received: cracked, good"):
        anomaly_folder(path=str(product))


def test_scratched_digits_have_defects_in_the_test_only():
    data = scratched_digits(image_size=16)
    assert not data.train["label"].any()
    assert (data.test["mask"].any((1, 2, 3)) == (data.test["label"] > 0)).all()
    clean = scratched_digits(image_size=16).test["image"][data.test["mask"] == 0]
    assert (clean == data.test["image"][data.test["mask"] == 0]).all()


def test_windows_end_with_the_step_that_they_are_labeled_by():
    data = anomaly_series(path=str(labeled_steps()), window=10)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [291, 50, 150]
    last = [window[-1, 0] for window in data.test["window"]]
    assert data.test["window"].shape == (150, 10, 1)
    assert np.flatnonzero(data.test["label"]).tolist() == [0, 1]  # rows 350 and 351
    assert data.validation.ids[data.validation["label"] == 1].tolist() == []
    assert last[0] == pytest.approx(np.sin(350 / 5) + 1, abs=1e-4)


def test_training_windows_with_an_anomalous_step_are_left_out(tmp_path):
    file = tmp_path / "s.csv"
    label = np.zeros(400, int)
    label[[100, 101, 300, 310, 311]] = 1
    rows = [f"2024-01-01 00:{i // 60:02}:{i % 60:02},{np.sin(i):.3f},{i % 7},{label[i]}" for i in range(400)]
    file.write_text("time,a,b,anomaly\n" + "\n".join(rows))
    data = anomaly_series(path=str(file), window=8)
    assert data.spec.inputs["window"].names == ("a", "b")
    assert len(data.train) == 240 - 7 - 9
    assert "9 training windows with an anomaly left out" in data.splits
    assert np.unique(data.test["event"]).tolist() == [0, 2, 3]
    assert data.test.ids[data.test["event"] == 3].tolist() == ["2024-01-01T00:05:10", "2024-01-01T00:05:11"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("time,value\n1,2\n", {}, "must have a column of labels.*data.label=COLUMN"),
        ("time,value,odd\n1,2,0\n", {"label": "od"}, "Did you mean 'odd'"),
        ("time,is_anomaly\n1,0\n", {}, "must have a column of values besides"),
        ("time,value,is_anomaly\n1,2,0\n2,3,7\n", {}, "must be 1 for an anomaly or 0. Received: 7"),
        ("time,value,is_anomaly\n" + "\n".join(f"{i},{i},0" for i in range(20)), {}, "20 rows are too few for data.window=64"),
        ("time,value,is_anomaly\n1,2,0\n1,3,0\n", {}, "times must be unique"),
        ("time,value,is_anomaly\n1,,0\n2,3,0\n", {}, "'value' must have a value in each row"),
    ],
)
def test_series_that_cannot_be_used_are_refused(content, options, message, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        anomaly_series(path=str(file), **options)


def test_planted_events_are_in_the_test_only_and_numbered():
    data = planted_events(steps=3000, window=16)
    assert not data.train["label"].any()
    assert (data.test["event"] > 0).tolist() == (data.test["label"] == 1).tolist()
    assert len(np.unique(data.test["event"])) > 5
