import itertools

import pytest
import torch
from sklearn.datasets import load_digits
from tests.samples import image_spec
from torch import nn

from dlframe.registry import models, plugins

plugins.discover()


def build(*shape: int, **options) -> nn.Module:
    torch.manual_seed(0)
    spec = image_spec("images", shape, tuple("0123456789"))
    return models.build({"name": "gan", "width": 4, "hidden_dim": 16, "latent_dim": 8, **options}, spec=spec)


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 1, 1), (2, 4, 5), (3, 7, 33), (4, 64, 3), (1, 31, 31), (3, 224, 224)]
)
def test_the_generator_draws_images_of_the_size_of_the_data(shape):
    gan = build(*shape)
    images = gan.generator(torch.randn(2, 8))
    assert images.shape == (2, *shape)
    assert images.min() > 0
    assert images.max() < 1
    assert gan(images).shape == (2, 10)
    assert gan.discriminator.features(images).shape == (2, 16)


@pytest.mark.parametrize(("side", "widest"), [(4, 4), (8, 8), (16, 16), (28, 32), (32, 32), (64, 32), (224, 32)])
def test_channels_double_with_each_of_the_first_three_halvings(side, widest):
    gan = build(3, side, side)
    for network in (gan.discriminator, gan.generator):
        convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert max(max(c.in_channels, c.out_channels) for c in convolutions) == widest


def test_the_classifier_is_the_discriminator_on_its_features():
    gan = build(1, 8, 8).eval()
    images = torch.from_numpy(load_digits().images[:8, None]).float() / 8 - 1
    logits = gan(images)
    assert torch.equal(logits, gan.discriminator(images))
    assert torch.equal(logits, gan.discriminator.head(gan.discriminator.features(images)))


def test_features_keep_their_scale_through_the_halvings():
    """Without a norm the initialisation has to see to it."""
    images = torch.randn(64, 3, 64, 64)
    spread = build(3, 64, 64, width=16, hidden_dim=128).eval().discriminator.features(images).square().mean().sqrt()
    assert 0.5 < spread < 2


def test_each_noise_has_an_image_of_its_own_whatever_else_is_drawn():
    generator = build(1, 28, 28).generator.eval()
    noise = torch.randn(4, 8)
    images = generator(noise)
    torch.testing.assert_close(generator(noise[2:3]), images[2:3])
    assert all((one - other).abs().max() > 1e-3 for one, other in itertools.combinations(images, 2))
