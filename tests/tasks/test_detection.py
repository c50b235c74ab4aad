"""Detection on files of many sizes, from training to boxes in pixels of the files; and its arithmetic."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from dlframe.cli import main
from dlframe.config import load
from dlframe.data.composed_digits import composed_digits
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import verify
from dlframe.registry import data, models, plugins, tasks
from dlframe.types import Batch, ConfigError, Ragged, Result

plugins.discover()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits in images of two sizes, with COCO's annotations; some are marked as crowds, none has an area."""
    root = tmp_path_factory.mktemp("digits")
    (root / "images").mkdir()
    split = composed_digits(images=160).train
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(160):
        width, height = ((160, 120), (90, 130))[i % 2]
        Image.fromarray(split["image"][i, 0]).resize((width, height)).save(root / "images" / f"{i:03}.png")
        images.append({"id": i, "file_name": f"{i:03}.png", "width": width, "height": height})
        for box, label in zip(split["box"][i].tolist(), split["label"][i].tolist(), strict=True):
            left, top, right, bottom = (v * s / 64 for v, s in zip(box, (width, height) * 2, strict=True))
            number = len(annotations)
            bbox = [left, top, right - left, bottom - top]
            crowd = int(number % 40 == 7)
            annotations.append({"id": number, "image_id": i, "category_id": label + 1, "bbox": bbox, "iscrowd": crowd})
    categories = [{"id": i + 1, "name": f"digit {i}"} for i in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content))
    return root


OPTIONS = ["task=object_detection", "model.width=8", "epochs=16", "optimizer.lr=0.01", "tracking=none", "figures=now"]


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    own = ["data=detection_folder", f"data.path={pictures}", "data.image_size=[64,64]", "data.color_mode=grayscale"]
    return run(load([*OPTIONS, *own, f"runs={tmp_path_factory.mktemp('runs')}"]))


def table(result: Result) -> dict[str, list]:
    assert result.folder
    return pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()


def test_metrics_are_those_of_the_program_of_coco(trained, pictures):
    """From the detections that a run wrote and the annotations as they were given, in pixels of the files."""
    coco = pytest.importorskip("faster_coco_eval")
    rows = table(trained)
    given = json.loads((pictures / "annotations.json").read_text())
    numbers = {f"images/{image['file_name']}": image["id"] for image in given["images"]}
    test = {numbers[name] for name in rows["id"]}
    content = {
        **given,
        "images": [image for image in given["images"] if image["id"] in test],
        "annotations": [
            {**a, "id": i + 1, "area": a["bbox"][2] * a["bbox"][3]}
            for i, a in enumerate(a for a in given["annotations"] if a["image_id"] in test)
        ],
    }
    results = [
        {
            "image_id": numbers[name],
            "category_id": int(kind.removeprefix("digit ")) + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for name, boxes, kinds, scores in zip(rows["id"], rows["box"], rows["prediction"], rows["score"], strict=True)
        for box, kind, score in zip(boxes, kinds, scores, strict=True)
    ]
    assert len(results) > 100
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = coco.COCOeval_faster(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_1", "ar_10", "ar_100")
    wanted = {name: float(v) if v >= 0 else float("nan") for name, v in zip(names, evaluation.stats, strict=False)}
    found = {name: trained.metrics[name] for name in names}
    assert found == pytest.approx(wanted, abs=1e-6, nan_ok=True)
    assert trained.metrics.keys() == {*names, "loss"}
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    with (trained.folder / "classes.csv").open(encoding="utf-8", newline="") as file:
        classes = list(csv.DictReader(file))
    assert [row["class"] for row in classes] == [kind["name"] for kind in given["categories"]]
    for row, kind in zip(classes, given["categories"], strict=True):
        own = precision[:, :, evaluation.params.catIds.index(kind["id"])]
        counted = [a for a in content["annotations"] if a["category_id"] == kind["id"] and not a.get("iscrowd")]
        assert int(row["objects"]) == len(counted)
        for name, values in (("ap", own), ("ap50", own[0]), ("ap75", own[5])):
            assert (row[name] == "") == (values < 0).all()
            assert row[name] == "" or float(row[name]) == pytest.approx(values.mean(), abs=1e-6)
    assert trained.metrics["ap50"] > 0.1 > trained.baseline[1]["ap50"]
    assert trained.interval.low < trained.metrics["ap"] < trained.interval.high


def test_a_run_is_scored_again_to_the_bit(trained):
    again = evaluate_run(trained.folder)
    assert str(again.metrics) == str(trained.metrics)
    assert {p.name for p in (trained.folder / "figures").iterdir()} >= {
        "detections.png",
        "precision_recall.png",
        "found_by.png",
    }


def test_predictions_are_in_pixels_of_the_file(trained, pictures, tmp_path, capsys):
    rows = table(trained)
    chosen = [name for name, kinds in zip(rows["id"], rows["prediction"], strict=True) if len(kinds) > 3][:4]
    out, drawn = tmp_path / "boxes.json", tmp_path / "drawn"
    files = [str(pictures / name) for name in chosen]
    assert main(["predict", str(trained.folder), *files, f"out={out}", f"draw={drawn}"]) == 0
    assert "resized with margins to 64x64: 4 inputs" in capsys.readouterr().err
    found = json.loads(out.read_text())
    assert [image["file_name"] for image in found["images"]] == files
    assert [c["name"] for c in found["categories"]] == [f"digit {i}" for i in range(10)]
    seen = 0
    for number, name in enumerate(chosen, 1):
        row = rows["id"].index(name)
        own = [a for a in found["annotations"] if a["image_id"] == number]
        assert [a["score"] for a in own] == pytest.approx(rows["score"][row][: len(own)], abs=1e-5), "the most confident ones"
        for a, box in zip(own, rows["box"][row], strict=False):
            assert a["bbox"] == pytest.approx([box[0], box[1], box[2] - box[0], box[3] - box[1]], abs=1e-3)
        seen += len(own)
        with Image.open(drawn / f"{Path(name).stem}.png") as picture:
            assert np.asarray(picture.convert("RGB")).std() > 0
    assert seen


def test_what_was_predicted_can_be_read_as_data(trained, pictures, tmp_path):
    out = tmp_path / "found.json"
    assert main(["predict", str(trained.folder), str(pictures / "images"), f"out={out}"]) == 0
    content = json.loads(out.read_text())
    for image in content["images"]:
        image["file_name"] = Path(image["file_name"]).name
    (pictures / "found.json").write_text(json.dumps(content))
    dataset = data.build({"name": "detection_folder", "path": str(pictures / "found.json"), "image_size": (64, 64)})
    (pictures / "found.json").unlink()
    boxes = sum(len(split["label"].values) for split in (dataset.train, dataset.validation, dataset.test))
    assert boxes == len(content["annotations"])


def test_a_table_of_classes_writes_no_boxes(tmp_path, capsys):
    result = run(load(["model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path}"]))
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    assert main(["predict", str(result.folder), str(tmp_path / "x.png"), f"out={tmp_path / 'x.json'}"]) == 2
    kinds = "is for boxes. Received: '{}' for a model of prediction, probabilities."
    out = tmp_path / "x.json"
    assert f"out: {kinds.format(out)} Try: out={tmp_path / 'x.jsonl'}\n" in capsys.readouterr().err
    assert main(["predict", str(result.folder), str(tmp_path / "x.png"), f"draw={tmp_path / 'drawn'}"]) == 2
    assert f"draw: {kinds.format(tmp_path / 'drawn')} Leave it out\n" in capsys.readouterr().err
    assert not (tmp_path / "drawn").exists()
    assert not out.exists()


class Known(torch.nn.Module):
    """Model that finds what it is told; its loss of the k-th image is k."""

    averages = "objects"

    def __init__(self, rows: list[torch.Tensor]) -> None:
        super().__init__()
        self.rows, self.ignored = rows, torch.zeros(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def detect(self, outputs: torch.Tensor) -> Ragged:
        offsets = torch.tensor([0, *np.cumsum([len(r) for r in self.rows])])
        return Ragged(torch.cat(self.rows), offsets)

    def losses(self, outputs, boxes, labels, ignored):
        self.ignored = ignored
        return torch.arange(len(outputs)).float()


def known(pictures: Path) -> Any:
    return load_data(load([*OPTIONS, "data=detection_folder", f"data.path={pictures}", "data.image_size=[64,64]"]))


def test_crowds_are_neither_learned_nor_missed(pictures):
    dataset = known(pictures)
    split = dataset.train
    crowd = split["about"].values[:, 1] > 0
    assert 0 < crowd.sum() < len(crowd)
    perfect = [
        torch.cat([torch.from_numpy(b), torch.ones(len(b), 1), torch.from_numpy(y)[:, None].float()], 1)
        for b, y in zip(split["box"], split["label"], strict=True)
    ]
    columns: dict[str, Any] = {name: torch.from_numpy(split[name]) for name in ("image", "frame")}
    for name in ("box", "label", "about"):
        columns[name] = Ragged(torch.from_numpy(split[name].values), torch.from_numpy(split[name].offsets))
    batch = Batch(columns, torch.arange(len(split)), dataset.spec)
    model = Known(perfect)
    task = tasks.build({"name": "detection"}, spec=dataset.spec, model=model)
    counted = int(task.counts(batch)["objects"])
    assert counted == (~crowd).sum()
    loss = task.loss(task.features(batch), "model", {"objects": counted, "samples": len(batch)})
    assert torch.equal(model.ignored, torch.from_numpy(crowd))
    scores = task.score(task.features(batch))
    metrics = task.metrics(scores)
    assert metrics["loss"] == pytest.approx(loss.item()) == sum(range(len(batch))) / counted
    assert metrics["loss"] > 0
    assert metrics["ap"] == pytest.approx(1), "a detection of a crowd is no false alarm"
    size = (scores["box"].values[:, 2:] - scores["box"].values[:, :2]).prod(1)
    assert torch.allclose(size, scores["about"].values[:, 0], rtol=1e-4), "areas are those of the boxes in the file"
    task.calibrate(scores)
    assert task.cutoff.item() == 1.0
    assert any("crowds or difficult" in note for note in task.notes(scores))


@pytest.mark.parametrize("options", [{"architecture": "fcos"}, {"architecture": "retinanet", "backbone": "resnet18"}])
def test_detectors_of_torchvision_learn_alike_in_any_batches(options):
    from dlframe.contracts.building import difference, step_loss
    from dlframe.contracts.samples import batch_of

    dataset = composed_digits(images=8)
    torch.manual_seed(0)
    model = models.build({"name": "torchvision_detector", **options}, spec=dataset.spec)
    task = tasks.build({"name": "detection"}, spec=dataset.spec, model=model).eval()
    gradients = []
    for sizes in ((8,), (5, 3)):
        index = np.split(np.arange(8), np.cumsum(sizes)[:-1])
        parts = [task.features(batch_of(dataset.train.take(i), dataset.spec)) for i in index]
        task.zero_grad()
        step_loss(task, parts, "model").backward()
        gradients.append({name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None})
    assert gradients[0]
    for name, gradient in gradients[0].items():
        assert not difference(gradients[1][name], gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_digits_are_found(tmp_path):
    result = run(load(["task=object_detection", "tracking=none", f"runs={tmp_path}"]))
    assert result.metrics["ap"] > 0.6 > 0.01 > result.baseline[1]["ap"]


@pytest.mark.slow
def test_a_killed_training_ends_as_one_that_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "task=object_detection",
        "data.images=100",
        "epochs=3",
        "accumulate_grad_batches=2",
        "augmentation=[flip,mosaic]",
    ]
    assert verify(command, kills=2, seed=0) == 0


BOXES = "takes box or class or value or number targets, but data=digits has class targets. Data that fit: composed_digits,"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model=center_detector"], f"model=center_detector: {BOXES}"),
        (["task=object_detection", "data=digits"], f": {BOXES}"),
        (["task=object_detection", "model=cnn"], "model=cnn: takes class targets, but data=composed_digits has box and class"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        load(options)
    assert message in str(error.value)
