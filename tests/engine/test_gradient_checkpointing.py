"""Gradient checkpointing: the same weights with less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlframe.config import load
from dlframe.engine.memory import recompute_blocks
from dlframe.jobs.train import run
from dlframe.runs.run_directory import BEST
from dlframe.storage import checkpoint
from dlframe.types import ConfigError

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize(
    "options",
    [
        ["model=resnet", "model.depth=8", "model.width=4", "epochs=1"],  # batch normalization: statistics count a batch once
        ["model=vit", "model.depth=2", "model.width=8", "model.dropout=0.3", "epochs=1"],  # random numbers are drawn again
        ["task=recommendation", "model=sasrec", "model.width=8", "epochs=1", "trainer.limit_batches=2"],
    ],
)
def test_the_weights_are_those_without(tmp_path, options):
    def trained(*more: str) -> dict[str, torch.Tensor]:
        return checkpoint.load(run(load([*options, "tracking=none", f"runs={tmp_path}", *more])).folder / BEST)[0]

    expected, found = trained(), trained("gradient_checkpointing=true")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert not isinstance(tensor, torch.Tensor) or torch.allclose(tensor, found[name], rtol=1e-5, atol=1e-7), name


def test_fewer_activations_are_kept():
    def kept(model: nn.Module) -> int:
        sizes = {}
        pack = lambda tensor: sizes.setdefault(tensor.data_ptr(), tensor.nbytes) and tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.ones(64, 8)).sum()
        return sum(sizes.values())

    def model() -> nn.Module:
        return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU()) for _ in range(6)))

    blocks, plain = model(), model()
    assert recompute_blocks(blocks, "blocks") == 6
    assert kept(blocks) < 0.5 * kept(plain)


def test_a_model_without_blocks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gradient_checkpointing: model=rnn has no list of blocks"):
        run(load(["model=rnn", "epochs=1", "tracking=none", f"runs={tmp_path}", "gradient_checkpointing=true"]))
