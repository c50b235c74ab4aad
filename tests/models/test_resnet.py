import pytest
import torch
from tests.samples import image_spec
from torch import nn

from dlframe.registry import models, plugins
from dlframe.registry.parameters import literals

plugins.discover()
DIGITS = image_spec("digits", (1, 8, 8), tuple("0123456789"))
DEPTHS = [int(depth) for depth in literals(models.get("resnet").parameters["depth"].annotation)]


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_the_layers_with_weights_on_the_longest_path(depth):
    model = models.build({"name": "resnet", "depth": depth, "width": 2}, spec=DIGITS)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
    assert len(layers) == depth


@pytest.mark.parametrize(("depth", "channels", "side"), [(14, 64, 8), (34, 128, 4)])
def test_each_stage_halves_the_image_and_doubles_the_channels(depth, channels, side):
    model = models.build({"name": "resnet", "depth": depth, "width": 16}, spec=DIGITS)
    assert model.blocks(model.stem(torch.rand(2, 1, 32, 32))).shape == (2, channels, side, side)


def test_takes_a_single_pixel():
    spec = image_spec("pixel", (3, 1, 1), ("no", "yes"))
    model = models.build({"name": "resnet", "depth": 18}, spec=spec)
    assert model(torch.rand(2, 3, 1, 1)).isfinite().all()
