"""The network for tables, by hand."""

import torch

from dlframe.models.tabular_mlp import TabularMLP
from dlframe.types import DataSpec, Field


def test_missing_numbers_and_categories_are_inputs_of_their_own():
    inputs = {
        "numbers": Field(kind="number", dtype="float64", shape=(2,), mean=(0.0, 0.0), std=(1.0, 1.0)),
        "categories": Field(kind="category", dtype="int32", shape=(1,)),
    }
    spec = DataSpec("x", inputs, {"y": Field(kind="class", dtype="int64", names=("a", "b"))}, {"cardinalities": [4]})
    model = TabularMLP(spec, width=8, depth=1, dropout=0).eval()
    numbers, codes = torch.tensor([[0.5, torch.nan], [0.5, 0.0]]), torch.tensor([[0], [3]], dtype=torch.int32)
    embedded = model.embeddings[0].weight[[0, 3]]
    flat = torch.tensor([[0.5, 0.0, 0.0, 1.0], [0.5, 0.0, 0.0, 0.0]])
    expected = model.layers(torch.cat([flat, embedded], 1))
    torch.testing.assert_close(model({"numbers": numbers, "categories": codes}), expected)
    assert not torch.equal(expected[0], expected[1])
    assert model.embeddings[0].embedding_dim == 2  # half of the number of values
