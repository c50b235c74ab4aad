"""Transformer of texts from random weights."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dlframe.models.text_transformer import TextTransformer
from dlframe.types import DataSpec, Field, Ragged

SPEC = DataSpec(
    "texts",
    {"text": Field(kind="tokens", dtype="int32", shape=(None,))},
    {"label": Field(kind="class", dtype="int64", names=("a", "b"))},
    {"vocabulary": [*map(str, range(20))]},
)


@pytest.mark.parametrize("lengths", [(9, 4, 7), (6, 6)])
def test_training_takes_a_fused_kernel_of_attention(lengths):
    """It makes no matrix of length x length; with dropout of attention weights, CPUs have none, and this raises."""
    torch.manual_seed(0)
    model = TextTransformer(SPEC, dropout=0.3).train()
    ends = torch.tensor((0, *lengths)).cumsum(0)
    tokens = Ragged(torch.randint(2, 22, (int(ends[-1]),)), ends)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        model(tokens).logsumexp(1).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())
    assert not torch.equal(model(tokens), model(tokens))  # other dropout is there
