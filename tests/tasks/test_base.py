"""What all tasks share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlframe.config import load
from dlframe.jobs.data import load_data


@pytest.mark.parametrize(
    ("layer", "overruns"),
    [
        (nn.Conv2d(4, 8, 1, 2), True),
        (nn.Conv2d(32, 8, 1, 2, groups=4), True),
        (nn.ConvTranspose2d(32, 8, 1, 2), False),
        (nn.LazyConv2d(8, 1, 2), True),  # its channels are not known yet
        (nn.Conv2d(16, 8, 1, 2), False),
        (nn.Conv2d(4, 8, 1), False),
        (nn.Conv2d(4, 8, 3, 2), False),
    ],
)
def test_images_are_not_channels_last_where_a_gradient_would_write_beyond_its_memory(layer, overruns):
    config = load(["model=cnn"])
    spec = load_data(config).spec
    task = config.build("task", spec=spec, model=config.build_model(spec))
    assert task.memory_format(True, "cpu") == torch.channels_last
    assert task.memory_format(False, "cpu") == torch.contiguous_format
    task.model.add_module("further", layer)
    assert task.memory_format(True, "cpu") == (torch.contiguous_format if overruns else torch.channels_last)
    assert task.memory_format(True, "gpu") == torch.channels_last
