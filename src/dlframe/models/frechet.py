"""Fréchet distances between generated and real images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.types import Dataset, DataSpec, Split

SAMPLES = 5_000
"""Maximum number of images of each kind."""
PART = 256
"""Batch size of images after training."""


def frechet_distances(spec: DataSpec, dataset: Dataset, generate: Callable[[int], np.ndarray]) -> dict[str, float]:
    """Return Fréchet distances from test images to generated and training images.

    Heusel et al. 2017, arXiv 1706.08500, in the features of a small classifier, `FeatureNetwork`. The second distance,
    `frechet_distance_real`, is a lower bound for any realistic generator.

    Args:
        spec: Specification of the data: images with classes.
        dataset: Images.
        generate: Function from a count to that many generated images, uint8.
    """
    count = min(len(dataset.train), len(dataset.test), SAMPLES)
    if count < 2:
        return {}
    (image,) = spec.inputs
    network = FeatureNetwork(spec, dataset.validation)
    train, test = (split[image][np.linspace(0, len(split) - 1, count).astype(int)] for split in (dataset.train, dataset.test))
    return {
        "frechet_distance": frechet_distance(network, test, generate(count)),
        "frechet_distance_real": frechet_distance(network, test, train),
    }


class FeatureNetwork(nn.Module):
    """Small classifier whose 64 features represent an image.

    3x3 convolutions of 32 channels and stride 2 down to 4 pixels a side, and a linear layer, each with ReLU; 500 Adam
    steps on batches of 64. All runs on the same data train the same network, on the validation images: these are labeled
    in every run and, unlike training images, are not measured.

    Args:
        spec: Specification of the data.
        split: Labeled images, uint8.
    """

    num_features = 64
    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, split: Split) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.input.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.input.std).view(-1, 1, 1))
        channels, height, width = spec.shape
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            while max(height, width) > 4:
                layers += [nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ReLU()]
                channels, height, width = 32, -(-height // 2), -(-width // 2)
            linear = nn.Linear(channels * height * width, self.num_features)
            self.layers = nn.Sequential(*layers, nn.Flatten(), linear, nn.ReLU())
            (image,), (label,) = spec.inputs, spec.targets
            self._learn(split[image], split[label], nn.Linear(self.num_features, len(spec.classes)))

    def _learn(self, images: np.ndarray, labels: np.ndarray, head: nn.Linear) -> None:
        optimizer = torch.optim.Adam([*self.parameters(), *head.parameters()], lr=2e-3)
        for _ in range(500):
            index = torch.randint(len(labels), (64,)).numpy()
            batch, targets = (torch.from_numpy(array[index]) for array in (images, labels))
            optimizer.zero_grad()
            functional.cross_entropy(head(self(batch)), targets).backward()
            optimizer.step()

    def forward(self, images: Tensor) -> Tensor:
        """Return features (batch, 64) of uint8 images."""
        return self.layers((images.float() / 255 - self.mean) / self.std)


def frechet_distance(network: nn.Module, images: np.ndarray, others: np.ndarray) -> float:
    """Return the squared Fréchet distance between the features of two image sets.

    The distance is between Gaussians with the means and covariances of the features.

    Args:
        network: Maps images to features (batch, num_features).
        images: (samples, *shape); at least two samples.
        others: Second set, as `images`.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(network, sync_on_compute=False)
    for array, real in ((images, True), (others, False)):
        for part in torch.from_numpy(array).split(PART):
            distance.update(part, real=real)
    return distance.compute().item()
