"""Detectors of torchvision: FCOS, RetinaNet, Faster R-CNN and SSDlite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import detection, mobilenet, resnet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from dlframe.models.weight_files import MOBILENET_V2, load, read
from dlframe.registry import Probability, models
from dlframe.storage.checkpoint import restore
from dlframe.storage.fetch import member
from dlframe.types import ConfigError, DataSpec, Ragged

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet, with which pretrained weights were trained."""

STRIDES = (8, 16, 32, 64)
"""Pixels of a cell of each level of the pyramid."""


@models.register(
    "torchvision_detector",
    inputs=("image",),
    targets=("box", "class", "value", "number"),
    requires=("box", "class"),
    sample={"name": "composed_digits", "images": 64},
    exempt={"overfits": "Losses with parts that cannot vanish (centerness), and minutes on a CPU."},
)
class TorchvisionDetector(nn.Module):
    """Detector of torchvision with a feature pyramid.

    FCOS (Tian et al. 2019, arXiv 1904.01355), RetinaNet (Lin et al. 2017, arXiv 1708.02002), Faster R-CNN (Ren et al. 2015,
    arXiv 1506.01497) and SSDlite (Sandler et al. 2018, arXiv 1801.04381). Losses are torchvision's, computed for each image and
    averaged: torchvision divides FCOS's by the cells with an object in a batch, which depends on how samples are divided into
    batches. SSDlite, whose heads have batch normalization, is trained by batches. Objects to be ignored are not learned, but
    neither are their places left out.

    Args:
        architecture: Detector. Images are not resized, except by ssdlite, to 320 x 320 pixels.
        backbone: Network below the pyramid; ssdlite has its own, MobileNetV3.
        norm: Normalization in the backbone: batch, or frozen, with the statistics of the weights it starts from.
        weights: Start of the weights: none (random), package (mobilenet_v2 trained on ImageNet), or the path of a
            .safetensors, .pt or .pth file of a whole detector, whose head may be of other classes.
        min_confidence: Lowest confidence of a detection.
        nms: Overlap beyond which the less confident of two boxes of a class is left out.
    """

    detector: Any
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        architecture: Literal["fcos", "retinanet", "faster_rcnn", "ssdlite"] = "fcos",
        backbone: Literal["mobilenet_v2", "resnet18"] = "mobilenet_v2",
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
        self.architecture = architecture
        classes = len(spec.classes) + 1  # 0 is the background
        options: dict[str, Any] = {"num_classes": classes}
        shared = {"score_thresh": min_confidence, "nms_thresh": nms, "detections_per_img": 100}
        own = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if architecture == "ssdlite":
            self.detector = detection.ssdlite320_mobilenet_v3_large(
                weights=None, weights_backbone=None, image_mean=own[0], image_std=own[1], **options, **shared
            )
        else:
            pyramid = _pyramid(backbone, frozen=norm == "frozen")
            if architecture == "fcos":
                anchors = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * 4)
                self.detector = detection.FCOS(pyramid, anchor_generator=anchors, **options, **shared)
            elif architecture == "retinanet":
                sizes = tuple(tuple(int(3 * s * 2 ** (k / 3)) for k in range(3)) for s in STRIDES)
                anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 4)
                self.detector = detection.RetinaNet(pyramid, anchor_generator=anchors, **options, **shared)
            else:
                anchors = AnchorGenerator(tuple((3 * s,) for s in STRIDES), ((0.5, 1.0, 2.0),) * 4)
                pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2)
                boxes = {f"box_{name}": value for name, value in shared.items()}
                self.detector = detection.FasterRCNN(
                    pyramid, rpn_anchor_generator=anchors, box_roi_pool=pool, **options, **boxes
                )
            sides = (min(height, width), max(height, width))
            self.detector.transform = GeneralizedRCNNTransform(sides[0], sides[1], list(own[0]), list(own[1]))
        # From (pixels - mean) / std of the data to (pixels - mean) / std of ImageNet.
        mean, std, own_mean, own_std = (torch.tensor(x).view(-1, 1, 1) for x in (MEAN, STD, spec.input.mean, spec.input.std))
        self.register_buffer("scale", own_std / std, persistent=False)
        self.register_buffer("shift", (own_mean - mean) / std, persistent=False)
        if weights not in ("none", "package"):
            tensors, file = read(Path(weights)), Path(weights)
            load(self.detector, tensors, file, _heads(self.detector, tensors))
        elif weights == "package":
            file = member(*MOBILENET_V2)
            body = {name.removeprefix("features."): t for name, t in read(file).items() if name.startswith("features.")}
            own = self.detector.backbone.body.state_dict()
            # The file is older than the counter of batches, and the pyramid uses no layer after the last level.
            tensors = {**own, **{name: tensor for name, tensor in body.items() if name in own}}
            restore(self.detector.backbone.body, tensors, file)

    def _images(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift

    def loss(self, images: Tensor, boxes: Ragged, labels: Tensor, ignored: Tensor, total: Any, samples: Any) -> Tensor:
        """Return the loss, a sum over images divided by `samples`, those of the optimizer step.

        Args:
            images: (batch, channels, height, width), normalized.
            boxes: (objects, 4) corners in pixels, by image.
            labels: (objects,) class indices.
            ignored: (objects,) bool, objects that are not learned.
            total: Number of objects; unused, as torchvision's losses are means.
            samples: Number of samples.
        """
        images = self._images(images)
        image = torch.repeat_interleave(torch.arange(len(images), device=images.device), boxes.lengths)
        targets = []
        for i in range(len(images)):
            own = (image == i) & ~ignored
            targets.append({"boxes": boxes.values[own].to(images.dtype), "labels": labels[own] + 1})
        with _LossMode(self.detector):
            if self.architecture == "ssdlite":
                losses = self.detector(list(images), targets)
                return torch.stack([*losses.values()]).sum() * len(images) / samples
            features = self.detector.backbone(self.detector.transform(list(images))[0].tensors)
            backbone, sums = self.detector.backbone, []
            try:
                for i, target in enumerate(targets):
                    part = _Given({name: level[i : i + 1] for name, level in features.items()}, backbone.out_channels)
                    self.detector.backbone = part
                    sums.append(torch.stack([*self.detector([images[i]], [target]).values()]).sum())
            finally:
                self.detector.backbone = backbone
        return torch.stack(sums).sum() / samples

    def detect(self, images: Tensor) -> Ragged:
        """Return detections (n, 6) of each image: left, top, right, bottom in pixels, confidence, class."""
        found = self.detector(list(self._images(images)))
        rows = []
        for one in found:
            box, score, label = (one[name] for name in ("boxes", "scores", "labels"))
            own = torch.cat([box, score.unsqueeze(1), label.unsqueeze(1).to(box.dtype) - 1], 1).float()
            rows.append(own[(box[:, 2:] > box[:, :2]).all(1)])  # cut to the image, some have no area
        lengths = torch.tensor([len(own) for own in rows], device=images.device)
        return Ragged(torch.cat(rows), functional.pad(lengths.cumsum(0), (1, 0)))


class _LossMode:
    """Context in which a detector returns losses, whatever the mode of its layers.

    Args:
        detector: Detector of torchvision, whose own `training` decides between losses and detections.
    """

    def __init__(self, detector: Any) -> None:
        self.modules = [m for m in (detector, *(getattr(detector, n, None) for n in ("transform", "rpn", "roi_heads"))) if m]

    def __enter__(self) -> None:
        self.before = [module.training for module in self.modules]
        for module in self.modules:
            module.training = True

    def __exit__(self, *_: object) -> None:
        for module, training in zip(self.modules, self.before, strict=True):
            module.training = training


class _Given(nn.Module):
    """Backbone that returns features which are there already."""

    def __init__(self, features: dict[str, Tensor], out_channels: int) -> None:
        super().__init__()
        self.features, self.out_channels = features, out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.features


def _pyramid(name: str, *, frozen: bool) -> BackboneWithFPN:
    """Return a backbone with a pyramid of strides 8 to 64."""
    norm = FrozenBatchNorm2d if frozen else nn.BatchNorm2d
    if name == "mobilenet_v2":
        # The last layers of each stride: the next one halves the sides.
        body: nn.Module = mobilenet.mobilenet_v2(weights=None, norm_layer=norm).features
        levels, channels = {"6": "0", "13": "1", "17": "2"}, [32, 96, 320]
    else:
        body = resnet.resnet18(weights=None, norm_layer=norm)
        levels, channels = {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512]
    return BackboneWithFPN(body, levels, channels, 128)


def _heads(detector: nn.Module, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    """Return the names of parameters whose shape in a file is another: heads of other classes."""
    own = detector.state_dict()
    return tuple(name for name in own if name in tensors and tensors[name].shape != own[name].shape)
