"""One class for each sample, learnt by a discriminator against a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Fraction, NonNegative, tasks
from dlframe.tasks.base import Scores
from dlframe.tasks.classification import Classification
from dlframe.types import UNLABELLED, Batch, Dataset, DataSpec, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 5_000
"""At most so many images of each kind go into a Fréchet distance."""
PART = 256
"""Images that go through a network at once when training is over."""


@tasks.register(
    "adversarial",
    players=("discriminator", "generator"),
    unlabelled=True,
    metrics={"accuracy": "max", "f1": "max", "loss": "min", "calibration_error": "min"},
    monitor="accuracy",
)
class Adversarial(Classification):
    """One class for each sample, learnt from labels and from telling real images, labelled or not, from generated ones.

    Salimans et al. 2016 (arXiv 1606.03498), section 5. A further class, "generated", is given the logit 0, so that the
    softmax says of an image that it is real with probability Z / (Z + 1), where Z is the sum of exp(logits) over the
    classes. With L = log Z the discriminator lowers

        cross-entropy over the classes + adversarial_weight * (softplus(-L(real)) + softplus(L(generated))) / 2

    each term a mean over its images. It differs from the paper in that labelled images come as they fall in a batch of
    all, not in batches of their own: a batch without any has no first term. Labels that were mixed count by their shares.

    The model has two parts: `discriminator`, with `features`, and `generator`, which makes images in [0, 1] of noise of
    length `latent`. When training ends, the Fréchet distance (Heusel et al. 2017, arXiv 1706.08500) says how far
    generated images are from the test images in the features of a small classifier, `FeatureNetwork`;
    `frechet_distance_real` says how far as many training images are, which no generator can be expected to beat.

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
        adversarial_weight: Weight of the real-or-generated term; 0 learns from the labels alone.
        objective: What the generator lowers: the squared distance between the mean features of real and of generated images
            (feature_matching), or softplus(-L(generated)) (non_saturating; Goodfellow et al. 2014, arXiv 1406.2661).
    """

    model: Any

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        label_smoothing: Fraction = 0.0,
        adversarial_weight: NonNegative = 1.0,
        objective: Literal["feature_matching", "non_saturating"] = "feature_matching",
    ) -> None:
        super().__init__(spec, model, label_smoothing=label_smoothing)
        self.adversarial_weight = adversarial_weight
        self.objective = objective

    def network(self, player: str) -> nn.Module:
        return getattr(self.model, player)

    def generate(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count, *spec.shape) images in [0, 1], from noise of `generator`, or of torch's own."""
        noise = torch.randn(
            count, self.model.generator.latent, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.model.generator(noise)

    def loss(self, batch: Batch, player: str) -> Tensor:
        real = self.normalize(batch.inputs)
        if player == "discriminator":
            with torch.no_grad():
                generated = self.normalize(self.generate(len(real)))
            logits = self.model(real)
            adversarial = unsupervised(logits, self.model(generated))
            return self.supervised(logits, batch.targets) + self.adversarial_weight * adversarial
        generated = self.normalize(self.generate(len(real)))
        if self.objective == "non_saturating":
            return functional.softplus(-self.model(generated).logsumexp(1)).mean()
        with torch.no_grad():
            features = self.model.discriminator.features(real).mean(0)
        return functional.mse_loss(self.model.discriminator.features(generated).mean(0), features)

    def supervised(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the labelled samples, 0 where there are none.

        Args:
            logits: (batch, classes).
            targets: (batch,) class numbers, `UNLABELLED` where hidden; or (batch, classes) shares, less than 1 in sum where
                an unlabelled sample was mixed in.
        """
        classes = logits.shape[1]
        if targets.ndim == 1:
            labelled = (targets != UNLABELLED).unsqueeze(1)
            targets = functional.one_hot(targets.clamp(min=0), classes) * labelled.to(logits.dtype)
        share = targets.sum(1, keepdim=True)
        targets = torch.lerp(targets, (share / classes).expand_as(targets), self.label_smoothing)
        return -(targets * logits.log_softmax(1)).sum() / share.sum().clamp(min=1)

    def drawn(self, count: int) -> np.ndarray:
        """(count, *spec.shape) generated images, uint8, from the same noise at each call."""
        generator = torch.Generator(self.mean.device).manual_seed(0)
        with torch.inference_mode():
            parts = [self.generate(min(PART, count - start), generator) for start in range(0, count, PART)]
        return (torch.cat(parts).float() * 255).round().byte().numpy(force=True)

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        from dlframe import plots

        return {**super().figures(scores, dataset), "generated": plots.grid(self.drawn(64))}

    def finish(self, dataset: Dataset) -> dict[str, float]:
        """The Fréchet distances from the test images to generated ones and to training images, as many of each."""
        count = min(len(dataset.train), len(dataset.test), SAMPLES)
        if count < 2:
            return {}
        network = FeatureNetwork(self.spec, dataset.validation)
        train, test = (
            split.inputs[np.linspace(0, len(split) - 1, count).astype(int)] for split in (dataset.train, dataset.test)
        )
        return {
            "frechet_distance": frechet_distance(network, test, self.drawn(count)),
            "frechet_distance_real": frechet_distance(network, test, train),
        }


def unsupervised(real: Tensor, generated: Tensor) -> Tensor:
    """Cross-entropy of real or generated, half from each, of logits (batch, classes): -log(Z / (Z + 1)), -log(1 / (Z + 1))."""
    return (functional.softplus(-real.logsumexp(1)).mean() + functional.softplus(generated.logsumexp(1)).mean()) / 2


class FeatureNetwork(nn.Module):
    """64 features of an image, of a small classifier that is trained here, the same for all runs on the same data.

    3x3 convolutions of 32 channels and stride 2 down to 4 pixels a side, and a linear layer, each with ReLU; 500 steps
    of Adam on 64 images. It learns from the validation images: they have their labels in every run, and, unlike the
    training images, they are not part of what is measured.

    Args:
        spec: What the data is like.
        split: Labelled images, uint8.
    """

    num_features = 64
    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec, split: Split) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))
        channels, height, width = spec.shape
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(0)
            while max(height, width) > 4:
                layers += [nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ReLU()]
                channels, height, width = 32, -(-height // 2), -(-width // 2)
            linear = nn.Linear(channels * height * width, self.num_features)
            self.layers = nn.Sequential(*layers, nn.Flatten(), linear, nn.ReLU())
            self._learn(split, nn.Linear(self.num_features, len(spec.classes)))

    def _learn(self, split: Split, head: nn.Linear) -> None:
        optimizer = torch.optim.Adam([*self.parameters(), *head.parameters()], lr=2e-3)
        for _ in range(500):
            index = torch.randint(len(split), (64,)).numpy()
            images, targets = (torch.from_numpy(array[index]) for array in (split.inputs, split.targets))
            optimizer.zero_grad()
            functional.cross_entropy(head(self(images)), targets).backward()
            optimizer.step()

    def forward(self, images: Tensor) -> Tensor:
        """Features (batch, 64) of images (batch, channels, height, width), uint8."""
        return self.layers((images.float() / 255 - self.mean) / self.std)


def frechet_distance(network: nn.Module, images: np.ndarray, others: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians with the means and covariances of the features of two sets of images.

    Args:
        network: Gives (batch, num_features) features of images as `images` holds them.
        images: (samples, *shape), two samples at the least.
        others: Likewise.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    distance = FrechetInceptionDistance(network, sync_on_compute=False)
    for array, real in ((images, True), (others, False)):
        for part in torch.from_numpy(array).split(PART):
            distance.update(part, real=real)
    return distance.compute().item()
