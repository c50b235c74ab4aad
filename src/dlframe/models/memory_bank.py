"""Memory bank of features of image patches."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2

from dlframe.models.nearest import coreset, nearest
from dlframe.models.weight_files import MOBILENET_V2, read
from dlframe.registry import Count, models
from dlframe.storage.checkpoint import restore
from dlframe.storage.fetch import member
from dlframe.types import ConfigError, DataSpec, say

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Statistics of ImageNet, with which the weights were trained."""

SIZE = 64
"""Height and width of images without pretrained weights; 224 with them."""

FINE, COARSE = 7, 14
"""Blocks of MobileNetV2 up to strides of 8 and 16 pixels: 32 and 96 channels."""

NEIGHBORS = 9
"""Members of the bank near the nearest one of an image's most unusual patch, that weight its score."""


@models.register(
    "memory_bank",
    networks=(),
    inputs=("image",),
    targets=("class", "mask"),
    task="anomaly",
    unlabeled=True,
    sized=True,
    exempt={"gradients": "the features are fixed, the bank has none", "overfits": "distances have no loss"},
)
class MemoryBank(nn.Module):
    """Distances of image patches to the nearest patches of normal images, by features of MobileNetV2.

    PatchCore (Roth et al. 2022, arXiv 2106.08265): features of two depths, averaged over 3 x 3 patches, of which a greedy
    coreset is kept. The score of an image is the largest distance of its patches, weighted by how near the neighbors of the
    nearest member are; the scores of pixels are interpolated distances. Unlike in the paper, the network is MobileNetV2
    (Sandler et al. 2018, arXiv 1801.04381), the size of the coreset is a number of patches, and scores of pixels are not
    smoothed. One epoch fills the bank; no augmentation and no gradients are needed.

    Args:
        weights: Weights of the network: package (trained on ImageNet), or none, which draws them: patches are then compared by
            random features.
        size: Patches in the bank.
        candidates: Patches of which the coreset is chosen, at most; of more, some are drawn.
        image_size: Height and width in pixels to which images are resized; null is 224 with weights, and 64 without.
    """

    scale: Tensor
    shift: Tensor
    seed: Tensor
    place: Tensor

    def __init__(
        self,
        spec: DataSpec,
        *,
        weights: Literal["none", "package"] = "none",
        size: Count = 1000,
        candidates: Count = 30_000,
        image_size: Count | None = None,
    ) -> None:
        super().__init__()
        if spec.shape[0] not in (1, 3):
            raise ConfigError(f"model=memory_bank: takes images of 1 or 3 channels. Received: {spec.shape[0]}.")
        self.image_size = self.input_size(weights=weights, image_size=image_size)
        self.size = size
        self.candidates = candidates
        self.weights = weights
        network = mobilenet_v2(weights=None)
        if weights == "package":
            path = member(*MOBILENET_V2)
            # The file is older than the counter of batches.
            restore(network, {**network.state_dict(), **read(path)}, path)
        self.fine, self.coarse = network.features[:FINE], network.features[FINE:COARSE]
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.seen: list[Tensor] = []
        self.bank: Tensor | None = None
        std, mean = torch.tensor(STD), torch.tensor(MEAN)
        scale, shift = torch.tensor(spec.input.std) / std, (torch.tensor(spec.input.mean) - mean) / std
        self.register_buffer("scale", scale.view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(3, 1, 1), persistent=False)
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("place", torch.zeros(()), persistent=False)

    @staticmethod
    def input_size(*, weights: str, image_size: int | None, **_: Any) -> int:
        """Return the height and width of the network's images for these options."""
        return image_size or (224 if weights == "package" else SIZE)

    def train(self, mode: bool = True) -> MemoryBank:
        """Leave the network in evaluation mode: its statistics are fixed."""
        return super().train(False)

    def prepare(self, parts: Any) -> None:
        """Tell where weights are random, and give their norms the statistics of training images."""
        if self.weights == "none":
            say(
                "memory_bank: the network has random weights. Weights trained on ImageNet tell more: model.weights=package",
                error=True,
            )
            norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all parts
                norm.training = True
            with torch.no_grad():
                for inputs in parts:
                    self.features(inputs)
            for norm in norms:
                norm.training = False

    def features(self, images: Tensor) -> Tensor:
        """Return the features of patches, (batch, channels, rows, columns)."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=max(images.shape[-2:]) > self.image_size)
        fine = self.fine(images * self.scale + self.shift)
        coarse = self.coarse(fine)
        averaged = [functional.avg_pool2d(features, 3, 1, 1) for features in (fine, coarse)]
        return torch.cat([averaged[0], functional.interpolate(averaged[1], fine.shape[-2:], mode="bilinear")], 1)

    def partial_fit(self, images: Tensor) -> None:
        """Keep the patches of images, unless the bank is closed."""
        if self.bank is None:
            self.seen.append(_rows(self.features(images)).cpu())

    def get_extra_state(self) -> dict[str, Tensor]:
        if len(self.seen) > 1:
            self.seen = [torch.cat(self.seen)]
        kept = {"seen": self.seen[0]} if self.seen else {}
        return kept if self.bank is None else kept | {"bank": self.bank}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.seen = [state["seen"].clone()] if "seen" in state else []
        self.bank = state["bank"].clone() if "bank" in state else None

    def begin_scoring(self) -> None:
        """Close the bank: choose the coreset of all patches."""
        if self.bank is not None or not self.seen:
            return
        rows, self.seen = torch.cat(self.seen), []
        if len(rows) > self.candidates:
            chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(int(self.seed)))
            rows = rows[chosen[: self.candidates].sort().values]
        rows = rows.to(self.place.device)
        self.bank = rows[coreset(rows, self.size, seed=int(self.seed))].contiguous()

    def distances(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (batch, patches, channels), distance to the nearest member and its number (batch, patches)."""
        features = self.features(images)
        rows = _rows(features)
        if self.bank is None:
            nothing = rows.new_zeros(len(images), len(rows) // max(1, len(images)))
            return rows.unflatten(0, (len(images), -1)), nothing, nothing.long()
        self.bank = self.bank.to(rows.device)
        distance, index = nearest(rows, self.bank, 1)
        shape = (len(images), -1)
        return rows.unflatten(0, shape), distance.view(shape), index.view(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (batch,) of normalized images; zeros before the bank is closed."""
        rows, distance, index = self.distances(images)
        score, patch = distance.max(1)
        if self.bank is None:
            return score
        every = torch.arange(len(images), device=score.device)
        query, member_of = rows[every, patch], self.bank[index[every, patch]]
        _, around = nearest(member_of, self.bank, min(NEIGHBORS, len(self.bank)))
        others = (query.unsqueeze(1).double() - self.bank[around].double()).square().sum(2).sqrt()
        # exp(score) / sum exp(others), without an overflow.
        weight = 1 - (score - torch.logsumexp(others, 1)).exp()
        return weight * score if len(self.bank) > 1 else score

    def maps(self, images: Tensor) -> Tensor:
        """Return the scores of pixels, (batch, height, width)."""
        distance = self.distances(images)[1]
        side = round(distance.shape[1] ** 0.5)
        grid = distance.view(-1, 1, side, side).float()
        return functional.interpolate(grid, images.shape[-2:], mode="bilinear").squeeze(1)


def _rows(features: Tensor) -> Tensor:
    """Return features (batch, channels, rows, columns) as vectors (batch * rows * columns, channels)."""
    return features.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
