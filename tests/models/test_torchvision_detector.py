"""Detectors of torchvision: losses of a validation, and weights from files and an address."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dlframe.contracts.samples import batch_of
from dlframe.data.composed_digits import composed_digits
from dlframe.models import torchvision_detector as module
from dlframe.registry import models, tasks
from dlframe.registry.plugins import discover
from dlframe.types import CheckpointError, ConfigError, DataSpec

discover()
DIGITS = composed_digits(images=8)


def built(spec: DataSpec = DIGITS.spec, **options: Any) -> Any:
    torch.manual_seed(0)
    return models.build({"name": "torchvision_detector", **options}, spec=spec)


def of_classes(count: int) -> DataSpec:
    """The digits with other classes."""
    label = replace(DIGITS.spec.targets["label"], names=tuple(map(str, range(count))))
    return replace(DIGITS.spec, targets={**DIGITS.spec.targets, "label": label})


@pytest.mark.parametrize("architecture", ["fcos", "retinanet", "faster_rcnn", "ssdlite"])
def test_the_loss_of_a_validation(architecture):
    """It is that of each image alone, the same each time, and changes neither layers nor what training draws."""
    task = tasks.build({"name": "detection"}, spec=DIGITS.spec, model=built(architecture=architecture)).eval()
    features = [task.features(batch_of(DIGITS.train.take(index), DIGITS.spec)) for index in ([0, 1, 2], [2])]
    before = {name: value.clone() for name, value in task.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        scores = [task.score(batch) for batch in (features[0], features[0], features[1])]
    together, again, alone = (score["loss"] for score in scores)
    assert torch.equal(together, again)
    assert torch.allclose(together[2:], alone, rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert not any(layer.training for layer in task.modules())
    assert task.metrics(scores[0])["loss"] == pytest.approx(together.double().mean().item())


@pytest.mark.parametrize("architecture", ["fcos", "retinanet"])
def test_losses_are_those_of_torchvision(architecture):
    """With fixed statistics of the normalization, one image has the loss that the detector itself gives in training mode."""
    model = built(architecture=architecture, norm="frozen")
    task = tasks.build({"name": "detection"}, spec=DIGITS.spec, model=model)
    index = next(i for i in range(8) if len(DIGITS.train["label"][i]) > 1)
    batch = task.features(batch_of(DIGITS.train.take([index]), DIGITS.spec))
    with torch.no_grad():
        found = task.eval().score(batch)["loss"]
        images = task.normalize(batch) * model.scale + model.shift
        target = {"boxes": batch["box"].values, "labels": batch["label"].values + 1}
        wanted = torch.stack([*model.detector.train()([*images], [target]).values()]).sum()
    assert torch.allclose(found, wanted)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_other_classes_has_its_head_left_out(suffix, tmp_path, capsys):
    other = built(of_classes(3)).detector.state_dict()
    file = tmp_path / f"other{suffix}"
    torch.save(other, file) if suffix == ".pth" else save_file(other, file)
    model = built(weights=str(file))
    assert capsys.readouterr().err == (f"model.weights: {file.name} has a head of other classes, whose 2 tensors are random\n")
    names = ("head.classification_head.cls_logits.weight", "head.classification_head.cls_logits.bias")
    for name, value in model.detector.state_dict().items():
        assert name in names or torch.equal(value, other[name]), name
    built(of_classes(3), weights=str(file))
    assert not capsys.readouterr().err, "the head of equal classes is loaded"


def test_a_file_of_another_detector_is_refused(tmp_path):
    torch.save(built(architecture="retinanet").detector.state_dict(), tmp_path / "retinanet.pth")
    with pytest.raises(
        CheckpointError,
        match=r"retinanet.pth: does not match the model: unexpected tensor 'head.classification_head.conv.0.0.bias'",
    ):
        built(weights=str(tmp_path / "retinanet.pth"))


def test_weights_of_frozen_layers_fit_those_that_count_batches(tmp_path):
    """As in torchvision's files, which were written by detectors with frozen normalization."""
    frozen = built(norm="frozen").detector
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    torch.save(frozen.state_dict(), tmp_path / "frozen.pth")
    model = built(weights=str(tmp_path / "frozen.pth"))
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.detector.modules())
    torch.save(model.detector.state_dict(), tmp_path / "batch.pth")
    built(weights=str(tmp_path / "batch.pth"), norm="frozen")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An address with weights of 91 classes; the name of the file has the first digits of its checksum."""
    monkeypatch.setenv("DLFRAME_DATA", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    torch.save(built(of_classes(90), architecture="ssdlite").detector.state_dict(), served / "ssdlite.pth")
    digits = hashlib.sha256((served / "ssdlite.pth").read_bytes()).hexdigest()[:8]
    (served / "ssdlite.pth").rename(served / f"ssdlite-{digits}.pth")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(module.COCO, "ssdlite", SimpleNamespace(url=f"{address}/ssdlite-{digits}.pth"))
    yield served / f"ssdlite-{digits}.pth"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_of_an_address(published: Path, capsys):
    kept = torch.load(published)
    for fetched in (True, False):
        model = built(architecture="ssdlite", weights="hub")
        said = capsys.readouterr().err
        assert ("Fetching ssdlite-" in said) is fetched
        assert "has a head of other classes, whose 12 tensors are random" in said
        assert torch.equal(
            model.detector.backbone.state_dict()["features.0.0.0.weight"], kept["backbone.features.0.0.0.weight"]
        )


def test_changed_weights_of_an_address_are_refused(published: Path):
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"^model.weights: .*truncated or changed: sha256 does not match"):
        built(architecture="ssdlite", weights="hub")


def test_detectors_without_published_weights():
    with pytest.raises(ConfigError, match=r"^model.weights: hub has those of backbone=resnet50, or of architecture=ssdlite"):
        built(weights="hub")
