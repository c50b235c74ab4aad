"""Recurrent recommender."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlframe.models.sequences import Sequential
from dlframe.registry import Count, Probability, models
from dlframe.types import DataSpec


@models.register(
    "gru4rec",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
)
class GRU4Rec(Sequential):
    """GRU over the last items of a user, which predicts the next one.

    Hidasi et al. 2016 (arXiv 1511.06939), with softmax over all items instead of a ranking loss, as Tan et al. 2016 (arXiv
    1606.08117), and with the embeddings of items as weights of the output.

    Args:
        width: Numbers in the embedding of an item.
        hidden: Units of the state of a layer.
        depth: Number of layers.
        dropout: Dropout probability of the numbers of an embedding.
        length: Items that are read.
        loss: Loss: softmax over all items, or pairwise (bpr) or log loss (pointwise) against drawn items.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        hidden: Count = 128,
        depth: Count = 1,
        dropout: Probability = 0.3,
        length: Count = 50,
        loss: Literal["softmax", "bpr", "pointwise"] = "softmax",
    ) -> None:
        super().__init__(spec, width=width, length=length, loss=loss)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(width, hidden, depth, batch_first=True)
        self.output = nn.Linear(hidden, width)

    def encode(self, items: Tensor) -> Tensor:
        return self.output(self.gru(self.dropout(self.item(items)))[0])
