import pytest
import torch
from sklearn.datasets import load_digits
from tests.samples import image_spec
from torch import nn
from torch.nn import functional

from dlframe.registry import models, plugins

plugins.discover()
DIGITS = image_spec("digits", (1, 8, 8), tuple("0123456789"))


def images(count: int = 32) -> torch.Tensor:
    return torch.from_numpy(load_digits().images[:count, None]).float() / 8 - 1


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_pooling_before_relu_changes_nothing(norm):
    """Also where a norm's negative weight turns the largest value into the smallest."""
    model = models.build({"name": "cnn", "norm": norm}, spec=DIGITS).eval()
    first, second = [layer for layer in model.features if isinstance(layer, nn.Conv2d)]
    norms: list[nn.Module] = [layer for layer in model.features if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        nn.init.normal_(layer.weight)
    before, after = norms or [nn.Identity(), nn.Identity()]
    features = after(second(before(first(images())).relu())).relu()
    features = functional.max_pool2d(features, 2).permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(model(images()), model.head(model.hidden(features).relu()))


def test_flattens_channels_last_memory_without_a_copy():
    model = models.build({"name": "cnn"}, spec=DIGITS).to(memory_format=torch.channels_last)
    seen = {}
    model.features.register_forward_hook(lambda module, inputs, output: seen.update(features=output.data_ptr()))
    model.hidden.register_forward_pre_hook(lambda module, inputs: seen.update(hidden=inputs[0].data_ptr()))
    model(images().to(memory_format=torch.channels_last))
    assert seen["features"] == seen["hidden"]


@pytest.mark.parametrize(
    ("shape", "depth", "features"),
    [
        ((1, 8, 8), 1, 4 * 4 * 8),
        ((1, 28, 28), 2, 7 * 7 * 16),
        ((3, 32, 32), 3, 4 * 4 * 32),
        ((1, 8, 8), 5, 128),
        ((3, 1, 9), 2, 2 * 16),
        ((1, 1, 1), 1, 8),
    ],
)
def test_pooling_stops_at_one_pixel(shape, depth, features):
    spec = image_spec("any", shape, ("no", "yes"))
    model = models.build({"name": "cnn", "depth": depth, "width": 4}, spec=spec)
    assert model.hidden.in_features == features
    assert model(torch.rand(2, *shape)).shape == (2, 2)
