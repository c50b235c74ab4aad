from tests.samples import image_spec
from torch import nn

from dlframe.registry import models, plugins

plugins.discover()
CIFAR = image_spec("cifar", (3, 32, 32), tuple("0123456789"))


def test_depth_is_the_number_of_hidden_layers():
    model = models.build({"name": "mlp", "depth": 3, "width": 16}, spec=CIFAR)
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(16, 3072), (16, 16), (16, 16), (10, 16)]
