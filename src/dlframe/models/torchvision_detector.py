"""Detectors of torchvision: FCOS, RetinaNet, Faster R-CNN and SSDlite."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import detection, mobilenet, resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from dlframe.models.weight_files import MOBILENET_V2, load, read
from dlframe.registry import Probability, models
from dlframe.storage.checkpoint import restore
from dlframe.storage.fetch import download, member
from dlframe.storage.private import cache
from dlframe.types import CheckpointError, ConfigError, DataError, DataSpec, Ragged, say

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet, with which pretrained weights were trained; those of ssdlite have 0.5."""

STRIDES = (8, 16, 32, 64)
"""Pixels of a cell of each level of the pyramid."""

COCO = {
    "fcos": detection.FCOS_ResNet50_FPN_Weights.COCO_V1,
    "retinanet": detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1,
    "faster_rcnn": detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1,
    "ssdlite": detection.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
}
"""Architecture -> weights that torchvision publishes, of 91 classes; the name of each file ends in digits of its SHA-256."""

HEADS = {
    "fcos": ("head.classification_head.cls_logits.",),
    "retinanet": ("head.classification_head.cls_logits.",),
    "faster_rcnn": ("roi_heads.box_predictor.",),
    "ssdlite": ("head.classification_head.",),
}
"""Architecture -> beginnings of the names of parameters whose shape depends on the classes."""


class Outputs(NamedTuple):
    """Outputs of a batch.

    Attributes:
        images: (batch, 3, height, width), as the detector takes them.
        features: Level of the pyramid -> (batch, channels, rows, columns).
        heads: Output of the heads -> (batch, anchors, ...); empty for faster_rcnn, whose second head follows the proposals.
    """

    images: Tensor
    features: dict[str, Tensor]
    heads: dict[str, Tensor]


@models.register(
    "torchvision_detector",
    inputs=("image",),
    targets=("box", "class", "value", "number"),
    requires=("box", "class"),
    scoring=("min_confidence", "nms"),
    sample={"name": "composed_digits", "images": 64},
    exempt={"overfits": "Losses with parts that cannot vanish (centerness), and minutes on a CPU."},
)
class TorchvisionDetector(nn.Module):
    """Detector of torchvision with a feature pyramid.

    FCOS (Tian et al. 2019, arXiv 1904.01355), RetinaNet (Lin et al. 2017, arXiv 1708.02002), Faster R-CNN (Ren et al. 2015,
    arXiv 1506.01497) and SSDlite (Sandler et al. 2018, arXiv 1801.04381). Losses are torchvision's, computed for each image and
    averaged: torchvision divides by what it finds in a batch, which depends on how samples are divided into batches. Objects
    to be ignored are not learned, but neither are their places left out.

    The loss of a validation is that of the training, with layers in evaluation mode; the anchors of which faster_rcnn draws
    a sample are always the same ones there.

    Args:
        architecture: Detector. Images are not resized, except by ssdlite, to 320 x 320 pixels.
        backbone: Network below the pyramid; with resnet50, the detector is torchvision's own; ssdlite has MobileNetV3.
        norm: Normalization in the backbone: batch, or frozen, with the statistics of the weights it starts from.
        weights: Start of the weights: none (random), package (mobilenet_v2 trained on ImageNet), hub (torchvision's detectors
            trained on COCO, of resnet50 or ssdlite), or the path of a .safetensors, .pt or .pth file of a whole detector. A
            head of another number of classes is left out.
        min_confidence: Lowest confidence of a detection.
        nms: Overlap beyond which the less confident of two boxes of a class is left out.
    """

    averages = "images"
    detector: Any
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        architecture: Literal["fcos", "retinanet", "faster_rcnn", "ssdlite"] = "fcos",
        backbone: Literal["mobilenet_v2", "resnet18", "resnet50"] = "mobilenet_v2",
        norm: Literal["batch", "frozen"] = "batch",
        weights: str = "none",
        min_confidence: Probability = 0.05,
        nms: Probability = 0.6,
    ) -> None:
        super().__init__()
        channels, height, width = spec.shape
        if channels not in (1, 3):
            raise ConfigError(f"model=torchvision_detector: takes images of 1 or 3 channels. Received: {channels}")
        if weights == "package" and (backbone != "mobilenet_v2" or architecture == "ssdlite"):
            raise ConfigError("model.weights: package has those of backbone=mobilenet_v2. Try: model.weights=none")
        if weights == "hub" and backbone != "resnet50" and architecture != "ssdlite":
            raise ConfigError(
                f"model.weights: hub has those of backbone=resnet50, or of architecture=ssdlite. Received: {architecture} with "
                f"{backbone}. Try: model.backbone=resnet50"
            )
        self.architecture = architecture
        box = "box_" * (architecture == "faster_rcnn")
        options: dict[str, Any] = {
            "num_classes": len(spec.classes) + 1,  # 0 is the background
            "image_mean": [0.0, 0.0, 0.0],
            "image_std": [1.0, 1.0, 1.0],
            f"{box}score_thresh": min_confidence,
            f"{box}nms_thresh": nms,
            f"{box}detections_per_img": 100,
        }
        if architecture != "ssdlite":
            options |= {"min_size": min(height, width), "max_size": max(height, width)}
        self.detector = _detector(architecture, backbone, options)
        if norm == "frozen":
            _freeze_norms(self.detector.backbone)
        # From (pixels - mean) / std of the data to (pixels - mean) / std of the weights.
        wanted = ((0.5,) * 3, (0.5,) * 3) if architecture == "ssdlite" else (MEAN, STD)
        mean, std, own_mean, own_std = (torch.tensor(x).view(-1, 1, 1) for x in (*wanted, spec.input.mean, spec.input.std))
        self.register_buffer("scale", own_std / std, persistent=False)
        self.register_buffer("shift", (own_mean - mean) / std, persistent=False)
        if weights == "package":
            self._load_backbone()
        elif weights != "none":
            self._load(_published(architecture) if weights == "hub" else Path(weights))

    def _load_backbone(self) -> None:
        """Load the ImageNet weights of MobileNetV2."""
        file = member(*MOBILENET_V2)
        body = {name.removeprefix("features."): t for name, t in read(file).items() if name.startswith("features.")}
        own = self.detector.backbone.body.state_dict()
        # The file is older than the counter of batches, and the pyramid uses no layer after the last level.
        restore(self.detector.backbone.body, {**own, **{name: tensor for name, tensor in body.items() if name in own}}, file)

    def _load(self, file: Path) -> None:
        """Load the weights of a whole detector, except a head of another number of classes."""
        tensors, heads = read(file), HEADS[self.architecture]
        left_out = load(self.detector, tensors, file, heads)
        if left_out:
            say(f"model.weights: {file.name} has a head of other classes, whose {len(left_out)} tensors are random", error=True)

    def forward(self, images: Tensor) -> Outputs:
        """Return features and heads of images (batch, channels, height, width), normalized."""
        images = images * self.scale + self.shift
        features = self.detector.backbone(self.detector.transform(list(images))[0].tensors)
        return Outputs(images, features, {} if self.architecture == "faster_rcnn" else self.detector.head([*features.values()]))

    def losses(self, outputs: Outputs, boxes: Ragged, labels: Tensor, ignored: Tensor) -> Tensor:
        """Return the loss of each image, (batch,).

        Args:
            outputs: Outputs of a batch.
            boxes: (objects, 4) corners in pixels, by image.
            labels: (objects,) class indices.
            ignored: (objects,) bool, objects that are not learned.
        """
        images, found = outputs.images, []
        devices = [images.device] if images.is_cuda else []
        image = torch.repeat_interleave(torch.arange(len(images), device=images.device), boxes.lengths)
        for i in range(len(images)):
            own = (image == i) & ~ignored
            target = {"boxes": boxes.values[own].to(images.dtype), "labels": labels[own] + 1}
            detector = _with_outputs(self.detector, outputs, slice(i, i + 1), training=True)
            # A validation draws the same each time, and changes nothing that training draws.
            with torch.random.fork_rng(devices, enabled=not self.training):
                if not self.training:
                    torch.manual_seed(0)
                found.append(torch.stack([*detector([images[i]], [target]).values()]).sum())
        return torch.stack(found) if found else images.new_zeros(0)

    def detect(self, outputs: Outputs) -> Ragged:
        """Return detections (n, 6) of each image: left, top, right, bottom in pixels, confidence, class."""
        images = outputs.images
        rows = [images.new_zeros(0, 6).float()]
        for one in _with_outputs(self.detector, outputs, slice(None), training=False)(list(images)):
            box, score, label = (one[name] for name in ("boxes", "scores", "labels"))
            own = torch.cat([box, score.unsqueeze(1), label.unsqueeze(1).to(box.dtype) - 1], 1).float()
            rows.append(own[(box[:, 2:] > box[:, :2]).all(1)])  # cut to the image, some have no area
        lengths = torch.tensor([len(own) for own in rows], device=images.device)
        return Ragged(torch.cat(rows), lengths.cumsum(0))


class _Given(nn.Module):
    """Backbone or head whose outputs are there already.

    Args:
        outputs: What it returns.
        of: The module that it stands for, which has the rest: the channels of a backbone, the losses of a head.
    """

    def __init__(self, outputs: dict[str, Tensor], of: nn.Module) -> None:
        super().__init__()
        self.outputs = outputs
        self.__dict__["of"] = of  # not a module of this one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["of"], name)

    def forward(self, *_: Any) -> dict[str, Tensor]:
        return self.outputs


def _with_outputs(detector: nn.Module, outputs: Outputs, rows: slice, *, training: bool) -> nn.Module:
    """Return a detector of the same layers that takes features and heads of `rows` as given.

    Args:
        detector: Detector of torchvision, which stays as it is.
        outputs: Outputs of a batch.
        rows: Images of the batch.
        training: Whether it returns losses, whatever the mode of its layers, or detections.
    """
    modules = detector._modules
    given = {"backbone": _Given({name: level[rows] for name, level in outputs.features.items()}, detector.backbone)}  # type: ignore[arg-type]
    if outputs.heads:
        given["head"] = _Given({name: level[rows] for name, level in outputs.heads.items()}, detector.head)  # type: ignore[arg-type]
    moded = {name: _twin(m, training) for name in ("transform", "rpn", "roi_heads") if (m := modules.get(name)) is not None}
    return _twin(detector, training, **given, **moded)


def _twin(module: nn.Module, training: bool, **replaced: nn.Module) -> nn.Module:
    """Return a module of the same layers, of which some are replaced, in another mode of its own."""
    twin = copy.copy(module)
    twin.__dict__ |= {"training": training, "_modules": {**module._modules, **replaced}}
    return twin


def _detector(architecture: str, backbone: str, options: dict[str, Any]) -> nn.Module:
    """Return a detector with random weights."""
    if architecture == "ssdlite":
        return detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, **options)
    if backbone == "resnet50":
        build = {
            "fcos": detection.fcos_resnet50_fpn,
            "retinanet": detection.retinanet_resnet50_fpn,
            "faster_rcnn": detection.fasterrcnn_resnet50_fpn,
        }
        return build[architecture](weights=None, weights_backbone=None, **options)
    pyramid = _pyramid(backbone)
    if architecture == "fcos":
        anchors = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * 4)
        return detection.FCOS(pyramid, anchor_generator=anchors, **options)
    if architecture == "retinanet":
        sizes = tuple(tuple(int(3 * s * 2 ** (k / 3)) for k in range(3)) for s in STRIDES)
        return detection.RetinaNet(pyramid, anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 4), **options)
    anchors = AnchorGenerator(tuple((3 * s,) for s in STRIDES), ((0.5, 1.0, 2.0),) * 4)
    pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2)
    return detection.FasterRCNN(pyramid, rpn_anchor_generator=anchors, box_roi_pool=pool, **options)


def _pyramid(name: str) -> BackboneWithFPN:
    """Return a backbone with a pyramid of strides 8 to 64."""
    if name == "mobilenet_v2":
        # The last layers of each stride: the next one halves the sides.
        body: nn.Module = mobilenet.mobilenet_v2(weights=None).features
        levels, channels = {"6": "0", "13": "1", "17": "2"}, [32, 96, 320]
    else:
        body = resnet.resnet18(weights=None)
        levels, channels = {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512]
    return BackboneWithFPN(body, levels, channels, 128)


def _freeze_norms(module: nn.Module) -> None:
    """Replace batch normalization by that with fixed statistics, weights and biases."""
    for name, layer in module.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(layer.num_features, layer.eps))
        else:
            _freeze_norms(layer)


def _published(architecture: str) -> Path:
    """Return the file of torchvision's weights, from the cache or its address.

    Raises:
        CheckpointError: It cannot be downloaded, or is another file.
    """
    url = COCO[architecture].url
    name = url.rpartition("/")[2]
    digits = name.removesuffix(".pth").rpartition("-")[2]
    try:
        return download(url, cache() / "downloads" / "torchvision" / name, f"sha256:{digits}...")
    except DataError as error:
        raise CheckpointError(f"model.weights: {error}. Try: model.weights=FILE, or model.weights=none") from None
