"""A finished run is scored on other pictures with boxes, recordings and texts, by its own classes, letters and words."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from dlframe.cli import main
from dlframe.config import load
from dlframe.contracts.samples import inspected
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.types import ConfigError, DataError

QUICK = ["epochs=1", "trainer.limit_batches=2", "batch_size=4", "tracking=none", "figures=none"]
KINDS = ("bus", "car", "tram")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterable[Path]:
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLFRAME_DATA", str(place / "cache"))
        yield place


def boxes(folder: Path, count: int, kinds: Iterable[str] = KINDS, name: str = "a.json") -> Path:
    """Pictures of 64 x 48 pixels with an object of each class, as COCO's JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": kind} for i, kind in enumerate(kinds)]
    for i in range(count):
        file = folder / f"{name[0]}{i}.png"
        pixels = np.random.default_rng([*str(file).encode()]).integers(0, 256, (48, 64, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
        content["images"].append({"id": i, "file_name": file.name, "width": 64, "height": 48})
        content["annotations"] += [
            {"image_id": i, "category_id": k, "bbox": [4 + 9 * k, 2, 20, 30]} for k in range(len(content["categories"]))
        ]
    (folder / name).write_text(json.dumps(content))
    return folder


def recordings(folder: Path, texts: Iterable[str], name: str = "list.jsonl") -> Path:
    """Half a second of noise for each text, as a list in JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, text in enumerate(texts):
        values = np.random.default_rng([*f"{folder}{name}{i}".encode()]).integers(-999, 999, 8000).astype("<i2")
        with wave.open(str(folder / f"{name[0]}{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(values.tobytes())
        rows.append(json.dumps({"audio_filepath": f"{name[0]}{i}.wav", "text": text}))
    (folder / name).write_text("\n".join(rows))
    return folder / name


@pytest.fixture(scope="module")
def detector(place: Path) -> Path:
    path = boxes(place / "boxes", 15)
    options = ["task=object_detection", "data=detection_folder", f"data.path={path}", "data.image_size=[32,32]"]
    folder = run(load([*options, *QUICK, f"runs={place / 'runs'}"])).folder
    assert folder
    return folder


@pytest.fixture(scope="module")
def recognizer(place: Path) -> Path:
    path = recordings(place / "sounds", [("ab", "ba", "cab")[i % 3] for i in range(30)])
    options = ["task=speech_recognition", "data=speech_manifest", f"data.path={path}"]
    folder = run(load([*options, *QUICK, f"runs={place / 'runs'}"])).folder
    assert folder
    return folder


def test_boxes_have_the_classes_of_the_run(detector: Path, tmp_path: Path, capsys) -> None:
    """In a data set of their own, tram would be the first class."""
    folder = boxes(tmp_path / "new", 5, ["tram", "bus"])
    assert main(["test", str(detector), f"data.path={folder}"]) == 0
    out = capsys.readouterr().out
    assert "5 samples to test" in out
    assert "3 classes (bus, car, tram)" in out
    assert "split all as test" in out
    assert "unseen" not in out
    (file,) = detector.glob("predictions-*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert {row["id"] for row in rows} == {f"a{i}.png" for i in range(5)}


def test_training_images_among_other_boxes_are_told(detector: Path, place: Path, tmp_path: Path, capsys) -> None:
    folder = boxes(tmp_path / "new", 2)
    for i in range(15):
        (folder / f"x{i}.png").write_bytes((place / "boxes" / f"a{i}.png").read_bytes())
    content = json.loads((folder / "a.json").read_text())
    content["images"] += [{"id": 10 + i, "file_name": f"x{i}.png", "width": 64, "height": 48} for i in range(15)]
    (folder / "a.json").write_text(json.dumps(content))
    assert main(["test", str(detector), f"data.path={folder}"]) == 0
    train = json.loads((detector / "data.json").read_text())["train"]
    assert f"\n{train} of 17 samples are training samples of the run: not unseen\n" in capsys.readouterr().out


def test_of_splits_of_boxes_one_is_scored(detector: Path, tmp_path: Path, capsys) -> None:
    boxes(tmp_path / "new" / "train", 4)
    boxes(tmp_path / "new" / "valid", 3)
    assert evaluate_run(detector, changed=[f"data.path={tmp_path / 'new'}"]).samples == 3
    assert "detection_folder: left out train (4 images): validation is scored" in capsys.readouterr().err


def test_options_of_a_model_that_only_scoring_reads(detector: Path, capsys) -> None:
    assert main(["test", str(detector), "model.min_confidence=0.9"]) == 0
    assert "\nnot as in training: model.min_confidence=0.9\n" in capsys.readouterr().out
    assert main(["test", str(detector), "model.width=8"]) == 2
    assert "Of model=center_detector, test takes min_confidence, nms" in capsys.readouterr().err


def test_objects_of_other_classes(detector: Path, tmp_path: Path) -> None:
    data = [f"data.path={boxes(tmp_path / 'new', 3, ['trams', 'bus'])}"]
    with pytest.raises(DataError, match=r"class 'trams' is not one of the run: bus, car, tram. Did you mean 'tram'\? Leave"):
        evaluate_run(detector, changed=data)
    with pytest.raises(DataError, match=r"^data.classes: must be classes of the run. Received: 'trams'"):
        evaluate_run(detector, changed=[*data, "data.classes=[trams]"])
    assert evaluate_run(detector, changed=[*data, "data.classes=[bus,car,tram]"]).samples == 3


def test_boxes_without_objects(detector: Path, tmp_path: Path) -> None:
    folder = boxes(tmp_path / "new", 3)
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(
        DataError, match=r"test must have an object, without which it has no metric. Received: none in 3 images"
    ):
        evaluate_run(detector, changed=[f"data.path={folder}"])


def test_recordings_have_the_letters_of_the_run(recognizer: Path, tmp_path: Path, capsys) -> None:
    """In a data set of their own, b would be the first letter."""
    path = recordings(tmp_path, ["b", "cb", "BC!"])
    assert main(["test", str(recognizer), f"data.path={path}"]) == 0
    out = capsys.readouterr().out
    assert "3 samples to test" in out
    assert "split all as test" in out
    assert "unseen" not in out
    (file,) = recognizer.glob("predictions-*.parquet")
    assert sorted(row["target"] for row in pyarrow.parquet.read_table(file).to_pylist()) == ["b", "bc", "cb"]


def test_letters_that_the_run_lacks(recognizer: Path, tmp_path: Path, capsys) -> None:
    path = recordings(tmp_path, ["ab", "abd"])
    with pytest.raises(
        DataError, match=r":2: must have letters of the alphabet only. Received: 'd'. Leave such utterances out"
    ):
        evaluate_run(recognizer, changed=[f"data.path={path}"])
    assert evaluate_run(recognizer, changed=[f"data.path={path}", "data.on_error=skip"]).samples == 1
    assert "skipped 1" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "count"), [(["test"], 3), (["train", "dev"], 4), (["train", "dev", "test"], 5)])
def test_of_lists_one_is_scored(names: list[str], count: int, recognizer: Path, tmp_path: Path, capsys) -> None:
    for i, name in enumerate(names):
        recordings(tmp_path / "new", ["ab"] * (3 + i), f"{name}.jsonl")
    assert evaluate_run(recognizer, changed=[f"data.path={tmp_path / 'new'}"]).samples == count
    assert ("left out train (3 lines): " in capsys.readouterr().err) == (len(names) > 1)


def test_another_decoding(recognizer: Path, place: Path, tmp_path: Path, capsys) -> None:
    """The model of letters is that of a run that is trained with a beam search."""
    options = ["task=speech_recognition", "data=tones", "data.utterances=60", "epochs=1", "tracking=none", "figures=none"]
    beam = ["task.decoding=beam", "task.lm_order=2", "task.length_bonus=3"]
    plain, twin = (run(load([*options, *more, f"runs={place / 'runs'}"])) for more in ([], beam))
    assert plain.folder
    assert twin.folder
    assert plain.metrics != twin.metrics
    for folder in (plain.folder, twin.folder):
        assert evaluate_run(folder, changed=beam).metrics == twin.metrics
        assert evaluate_run(folder, changed=["task.decoding=greedy"]).metrics == plain.metrics
    capsys.readouterr()
    assert main(["test", str(recognizer), "split=validation", "task.decoding=beam", "task.beam_width=2"]) == 0
    out = capsys.readouterr().out
    assert "not as in training: task.decoding=beam, task.beam_width=2" in out
    assert "validation wer " in out
    count = json.loads((recognizer / "data.json").read_text())["validation"]
    assert evaluate_run(recognizer, split="validation").samples == count
    other = f"data.path={recordings(tmp_path, ['ab'])}"
    for changed, message in (
        (["task.decoding=beam", other], "task.decoding: with lm_order=3, beam needs a model of letters"),
        (["task.decoding=beam", "task.lm_order=9"], "task.lm_order: must be"),
        (["model.dropout=0.5"], "model.dropout: must be an option that only scoring reads. .* has no others"),
        (["task.decodign=beam"], "task.decodign: .* Did you mean 'decoding'"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate_run(recognizer, changed=changed)
    with pytest.raises(ConfigError, match="split: other data than the run's are all scored"):
        evaluate_run(recognizer, changed=[other], split="validation")


def test_a_list_to_validate_is_not_scored(recognizer: Path, tmp_path: Path) -> None:
    path = recordings(tmp_path / "new", ["ab"] * 3)
    with pytest.raises(ConfigError, match=r"^data.validation: is not what is scored, .* Try: .*data.path=.*list.jsonl"):
        evaluate_run(recognizer, changed=[f"data.validation={path}"])
    assert evaluate_run(recognizer, changed=[f"data.path={path}", "data.validation=null"]).samples == 3


def texts(file: Path, rows: Iterable[tuple[str, str]]) -> Path:
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return file


@pytest.fixture(scope="module")
def classifier(place: Path) -> Path:
    path = texts(place / "texts.csv", [(f"{('good', 'bad')[i % 2]} film {i}", ("pos", "neg")[i % 2]) for i in range(60)])
    options = ["task=text_classification", "data=text_table", f"data.path={path}", "data.text=text", "data.target=label"]
    settings = ["model=fasttext", "data.min_count=1", "epochs=40", "tracking=none", "figures=none", f"runs={place / 'runs'}"]
    folder = run(load([*options, *settings])).folder
    assert folder
    return folder


def test_texts_have_the_words_and_classes_of_the_run(classifier: Path, tmp_path: Path, capsys) -> None:
    """In a data set of their own, bad would be another token, and pos the only class."""
    file = texts(tmp_path / "new.csv", [("bad picture", "pos"), ("good stuff", "pos"), ("a good one", "pos"), ("xyz", "neg")])
    assert main(["test", str(classifier), f"data.path={file}"]) == 0
    out, told = capsys.readouterr()
    assert "4 samples to test" in out
    (file,) = classifier.glob("predictions-*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert [row["prediction"] for row in rows][:3] == ["neg", "pos", "pos"]
    assert [row["target"] for row in rows] == ["pos", "pos", "pos", "neg"]
    assert "1 of 4 texts have no word that the run knows" in told


def test_the_file_of_test_rows_is_scored(classifier: Path, place: Path, tmp_path: Path, capsys) -> None:
    """Not the texts that the run was trained on, which data.path names still."""
    file = texts(tmp_path / "new.csv", [("bad picture", "pos"), ("good stuff", "pos")])
    assert evaluate_run(classifier, changed=[f"data.test={file}"]).samples == 2
    assert evaluate_run(classifier, changed=[f"data.path={place / 'texts.csv'}", f"data.test={file}"]).samples == 2
    assert "unseen" not in capsys.readouterr().out


def test_texts_that_were_moved(classifier: Path, place: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "moved.csv").write_bytes((place / "texts.csv").read_bytes())
    evaluate_run(classifier, changed=[f"data.path={tmp_path / 'moved.csv'}"])
    assert "the same data as the run's" in capsys.readouterr().out


def test_a_long_text_is_cut_as_in_training_and_told(classifier: Path, tmp_path: Path, capsys) -> None:
    file = texts(tmp_path / "new.csv", [("good film " * 300, "pos"), ("bad", "neg")])
    assert evaluate_run(classifier, changed=[f"data.path={file}"]).samples == 2
    assert "the middle of 1 of 2 texts is left out: they have more than 512 tokens" in capsys.readouterr().err


def test_texts_that_cannot_be_scored(classifier: Path, tmp_path: Path) -> None:
    file = texts(tmp_path / "new.csv", [("good", "pos"), ("so so", "posi")])
    with pytest.raises(DataError, match=r"line 3: 'posi' must be a class of the training rows. Did you mean 'pos'\?"):
        evaluate_run(classifier, changed=[f"data.path={file}"])
    with pytest.raises(DataError, match=r"new.csv: "):
        evaluate_run(classifier, changed=[f"data.path={texts(tmp_path / 'new.csv', [])}"])


@pytest.mark.parametrize("parts", [[""], ["test"], ["train", "test"]])
def test_texts_in_folders(parts: list[str], place: Path, tmp_path: Path, capsys) -> None:
    def write(root: Path, count: int, start: int = 0) -> Path:
        for i in range(start, start + count):
            for word, label in (("good", "pos"), ("bad", "neg")):
                (root / label).mkdir(parents=True, exist_ok=True)
                (root / label / f"{i}.txt").write_text(f"{word} film {i}")
        return root

    path = write(tmp_path / "texts", 30)
    options = ["task=text_classification", "data=text_folder", f"data.path={path}", "data.min_count=1", "model=fasttext"]
    folder = run(load([*options, "epochs=1", "tracking=none", "figures=none", f"runs={tmp_path}"])).folder
    assert folder
    for i, part in enumerate(parts):
        write(tmp_path / "new" / part, 5 + i, 40 * (i + 1))
    assert evaluate_run(folder, changed=[f"data.path={tmp_path / 'new'}"]).samples == 2 * (4 + len(parts))
    assert ("left out train (10 files): test is scored" in capsys.readouterr().err) == (len(parts) == 2)


def test_defects_that_the_run_does_not_know(place: Path, tmp_path: Path, capsys) -> None:
    product = shutil.copytree(inspected(), tmp_path / "product")
    options = ["task=anomaly_localization", "data=anomaly_folder", f"data.path={product}", "data.image_size=24"]
    folder = run(load([*options, "model=autoencoder", *QUICK, f"runs={place / 'runs'}"])).folder
    assert folder
    new = tmp_path / "new"
    for kind in ("good", "spot"):
        shutil.copytree(product / "test" / kind, new / (kind if kind == "good" else "dent"))
    assert main(["test", str(folder), f"data.path={new}"]) == 2
    assert "must have a folder of masks, ground_truth, as the data of the run" in capsys.readouterr().err
    shutil.copytree(product / "ground_truth" / "spot", new / "ground_truth" / "dent")
    assert main(["test", str(folder), f"data.path={new}"]) == 0
    out = capsys.readouterr().out
    assert "20 samples to test" in out
    assert "dent" in out
    (file,) = folder.glob("predictions-*.parquet")
    assert {row["class"] for row in pyarrow.parquet.read_table(file).to_pylist()} == {"good", "dent"}
    shutil.copytree(product, tmp_path / "all")
    (tmp_path / "all" / "test" / "spot" / "44.png").unlink()
    capsys.readouterr()
    assert main(["test", str(folder), f"data.path={tmp_path / 'all'}"]) == 0
    assert "anomaly_folder: left out train (40 files): test is scored" in capsys.readouterr().err
    assert main(["test", str(folder), f"data.path={new / 'good'}"]) == 2
    assert "must have a folder of images for each class" in capsys.readouterr().err
    shutil.copytree(new / "good", tmp_path / "normal" / "good")
    assert main(["test", str(folder), f"data.path={tmp_path / 'normal'}"]) == 0
    assert "0 of 10 test samples are anomalies" in capsys.readouterr().out


def steps(file: Path, count: int, anomalies: Iterable[int], values: str = "x") -> Path:
    noise = np.random.default_rng(count).normal(0, 0.05, count)
    rows = [(i, np.sin(i / 5) + noise[i] + 2 * (i in anomalies), int(i in anomalies)) for i in range(count)]
    file.write_text(f"day,{values},is_anomaly\n" + "".join(f"{i},{value:.4f},{label}\n" for i, value, label in rows))
    return file


def test_steps_of_another_series(place: Path, tmp_path: Path, capsys) -> None:
    path = steps(place / "series.csv", 400, [300, 301, 350])
    options = ["task=series_anomaly_detection", "data=anomaly_series", f"data.path={path}", "data.window=8", "data.time=day"]
    folder = run(load([*options, "model=nearest_neighbors", "tracking=none", "figures=none", f"runs={place / 'runs'}"])).folder
    assert folder
    file = steps(tmp_path / "new.csv", 90, [2, 50, 51])
    assert main(["test", str(folder), f"data.path={file}"]) == 0
    out = capsys.readouterr().out
    assert "83 samples, all scored" in out
    assert "1 events in 83 steps" in out
    (kept,) = folder.glob("predictions-*.parquet")
    rows = pyarrow.parquet.read_table(kept).to_pylist()
    assert [row["id"] for row in rows] == [str(i) for i in range(7, 90)]
    assert [row["id"] for row in rows if row["target"] == "anomaly"] == ["50", "51"]
    assert {row["id"] for row in rows if row["prediction"] == "anomaly"} >= {"50", "51"}
    for name, count, column, message in (
        ("short", 7, "x", "must have at least 8 rows, those of a window. Received: 7"),
        ("other", 90, "y", "data.values must name a column. Received: 'x'."),
    ):
        with pytest.raises(DataError, match=message):
            evaluate_run(folder, changed=[f"data.path={steps(tmp_path / f'{name}.csv', count, [], column)}"])
