"""Autoencoders, whose reconstruction error is an anomaly score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.encoding import Decoder, Encoder, latent_of
from dlframe.models.flattening import Flattening
from dlframe.registry import Count, NonNegative, models
from dlframe.types import DataSpec


class Reconstruction(nn.Module):
    """Base of models whose score is an error of reconstruction, in units of the standardized inputs."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.flattening = Flattening(spec)
        self.image = spec.shape if spec.of_kind("image", spec.inputs) else ()

    def reconstructed(self, values: Tensor) -> Tensor:
        """Return what is made of vectors (batch, features)."""
        raise NotImplementedError

    def errors(self, inputs: Any) -> Tensor:
        """Return squared errors (batch, features); 0 for values that are missing."""
        values, known = self.flattening(inputs)
        errors = (self.reconstructed(values) - values).square()
        return errors if known is None else errors * known

    def maps(self, inputs: Tensor) -> Tensor:
        """Return the errors of pixels, (batch, height, width), the mean over channels."""
        return self.errors(inputs).view(-1, *self.image).mean(1)


@models.register(
    "autoencoder",
    inputs=("number", "category", "image", "series"),
    targets=("class", "mask", "event"),
    task="anomaly",
    unlabeled=True,
    exempt={"overfits": "the narrow code is to keep it from learning samples by heart"},
    search={"width": "choice(8,16,32,64)", "latent_dim": "choice(2,4,8,16,32)"},
)
class Autoencoder(Reconstruction):
    """Autoencoder; the score is the mean squared error of the reconstruction.

    Hinton and Salakhutdinov 2006 ("Reducing the dimensionality of data with neural networks"). Rows and windows have one
    hidden layer before and after the code; images have strided convolutions, and upsampling by nearest neighbor.

    Args:
        width: Units of a hidden layer; of images, channels at full size, doubled with each halving up to eightfold.
        latent_dim: Length of the code; null for half the number of values, of images an eighth, 32 at most.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 16, latent_dim: Count | None = None) -> None:
        super().__init__(spec)
        latent_dim = latent_of(self.flattening.features, self.image, latent_dim)
        self.encoder = Encoder(self.flattening.features, self.image, width, latent_dim)
        self.decoder = Decoder(self.flattening.features, self.image, width, latent_dim)

    def reconstructed(self, values: Tensor) -> Tensor:
        return self.decoder(self.encoder(values))

    def forward(self, inputs: Any) -> Tensor:
        """Return scores (batch,) of normalized inputs."""
        return self.errors(inputs).mean(1)


@models.register(
    "autoencoder_score",
    inputs=("number", "category"),
    targets=("class",),
    exempt={"overfits": "a class follows from one number, how unusual a row is"},
    search={"width": "choice(8,16,32,64)", "latent_dim": "choice(2,4,8,16,32)"},
)
class AutoencoderScore(nn.Module):
    """Classifier of rows by the reconstruction error of an autoencoder, for positives that are rare and unusual.

    The autoencoder learns from the rows that are not positive. Class probabilities are a logistic regression of the logarithm
    of its error (Platt 1999, "Probabilistic outputs for support vector machines"), which learns beside it from all rows, and
    begins with the frequencies of the classes, the rarest one as the unusual one.

    Args:
        width: Units of the hidden layers.
        latent_dim: Length of the code; null for half the number of values, 32 at most.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 16, latent_dim: Count | None = None) -> None:
        super().__init__()
        autoencoder, calibration = Autoencoder(spec, width=width, latent_dim=latent_dim), nn.Linear(1, len(spec.classes))
        nn.init.zeros_(calibration.weight)
        counts = torch.tensor(spec.fitted.get("counts") or [1] * len(spec.classes)).float()
        with torch.no_grad():
            calibration.weight[counts.argmin()] = 1.0
            calibration.bias.copy_((counts / counts.sum()).clamp(min=SMALLEST).log())
        self.autoencoder, self.calibration = autoencoder, calibration

    def forward(self, inputs: Any) -> Tensor:
        """Return logits (batch, classes) of normalized inputs; from them, the logistic regression learns alone."""
        with torch.no_grad():
            errors = self.autoencoder(inputs)
        return self.calibration(errors.clamp(min=SMALLEST).log().unsqueeze(1))

    def losses(self, inputs: Any) -> Tensor:
        """Return the errors (batch,) of the reconstruction."""
        return self.autoencoder(inputs)


SMALLEST = 1e-12
"""Smallest error whose logarithm is taken."""


@models.register(
    "vae",
    inputs=("number", "category", "image", "series"),
    targets=("class", "mask", "event"),
    task="anomaly",
    unlabeled=True,
    exempt={"overfits": "the noise of the code is to keep it from learning samples by heart"},
    search={"width": "choice(8,16,32,64)", "latent_dim": "choice(2,4,8,16,32)", "beta": "tag(log,interval(0.001,1))"},
)
class VariationalAutoencoder(Reconstruction):
    """Variational autoencoder; the score is the negative evidence lower bound, up to a constant.

    Kingma and Welling 2013 (arXiv 1312.6114), with a Gaussian of variance `beta` for each standardized value: half the
    squared error plus `beta` times the divergence of the code from a standard normal (Higgins et al. 2017), divided by the
    number of values. In training the code is drawn; the score takes its mean, and so depends on the sample only.

    A variance of 1 would call all of the data noise, since that is the variance of a standardized value: few coordinates of
    the code would be used (Rybkin et al. 2021, arXiv 2006.13202).

    Args:
        width: Units of a hidden layer; of images, channels at full size, doubled with each halving up to eightfold.
        latent_dim: Length of the code; null for half the number of values, of images an eighth, 32 at most.
        beta: Weight of the divergence, and variance of the noise of a value: with 0.01 a tenth of its standard deviation.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 16, latent_dim: Count | None = None, beta: NonNegative = 0.01) -> None:
        super().__init__(spec)
        self.beta = beta
        self.latent_dim = latent_of(self.flattening.features, self.image, latent_dim)
        self.encoder = Encoder(self.flattening.features, self.image, width, 2 * self.latent_dim)
        self.decoder = Decoder(self.flattening.features, self.image, width, self.latent_dim)

    def code(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the code, (batch, latent_dim)."""
        mean, log_variance = self.encoder(values).chunk(2, 1)
        return mean, log_variance.clamp(-20, 10)

    def reconstructed(self, values: Tensor) -> Tensor:
        return self.decoder(self.code(values)[0])

    def forward(self, inputs: Any) -> Tensor:
        """Return scores (batch,) of normalized inputs."""
        return self._bound(inputs, noise=False)

    def losses(self, inputs: Any) -> Tensor:
        """Return the negative bound (batch,) with a code that is drawn in training."""
        return self._bound(inputs, noise=self.training)

    def _bound(self, inputs: Any, *, noise: bool) -> Tensor:
        values, known = self.flattening(inputs)
        mean, log_variance = self.code(values)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp() if noise else mean
        errors = (self.decoder(code) - values).square()
        errors = errors if known is None else errors * known
        divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1)
        return (errors.sum(1) + self.beta * divergence) / (2 * values.shape[1])


@models.register(
    "deep_svdd",
    inputs=("number", "category", "image", "series"),
    targets=("class", "event"),
    task="anomaly",
    unlabeled=True,
    search={"width": "choice(16,32,64,128)", "latent_dim": "choice(8,16,32,64)"},
)
class DeepSVDD(nn.Module):
    """Deep support vector data description; the score is the squared distance to a fixed center.

    Ruff et al. 2018 ("Deep one-class classification"), the one-class form. The center is the mean of the outputs of the
    initial network, with no coordinate nearer to 0 than 0.1; layers have no bias and unbounded activations, so that no
    network maps all samples to it. Unlike in the paper, there is no pretraining as an autoencoder, and no batch norm.

    Args:
        width: Units of the hidden layer; of images, channels at full size, doubled with each halving up to eightfold.
        latent_dim: Length of the output.
    """

    center: Tensor

    def __init__(self, spec: DataSpec, *, width: Count = 64, latent_dim: Count = 32) -> None:
        super().__init__()
        self.flattening = Flattening(spec)
        image = spec.shape if spec.of_kind("image", spec.inputs) else ()
        self.encoder = Encoder(self.flattening.features, image, width, latent_dim, bias=False)
        self.register_buffer("center", torch.ones(latent_dim))

    @torch.no_grad()
    def prepare(self, parts: Any) -> None:
        """Set the center to the mean of the outputs of training samples."""
        total, count = torch.zeros_like(self.center, dtype=torch.float64), 0
        for inputs in parts:
            outputs = self.encoder(self.flattening(inputs)[0])
            total += outputs.double().sum(0)
            count += len(outputs)
        center = (total / max(1, count)).to(self.center.dtype)
        # A coordinate near 0 could be met by weights of 0.
        self.center.copy_(torch.where(center.abs() < NEAREST, torch.where(center < 0, -NEAREST, NEAREST), center))

    def forward(self, inputs: Any) -> Tensor:
        """Return scores (batch,) of normalized inputs."""
        return functional.mse_loss(
            self.encoder(self.flattening(inputs)[0]), self.center.expand(len(_first(inputs)), -1), reduction="none"
        ).sum(1)


NEAREST = 0.1
"""Smallest coordinate of a center."""


def _first(inputs: Any) -> Tensor:
    return next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
