"""Matrix factorization."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlframe.models.matching import Inputs, Matching, dot, repeated
from dlframe.registry import Count, models
from dlframe.types import DataSpec


@models.register(
    "matrix_factorization",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
)
class MatrixFactorization(Matching):
    """Products of embeddings of users and items.

    With loss=bpr, the BPR-MF of Rendle et al. 2009 (arXiv 1205.2618); regularization is the optimizer's weight decay.

    Args:
        width: Numbers in an embedding.
        loss: Loss: pairwise (bpr), log loss of seen and unseen items (pointwise), or softmax over all items.
    """

    new_users = False

    def __init__(self, spec: DataSpec, *, width: Count = 64, loss: Literal["bpr", "pointwise", "softmax"] = "bpr") -> None:
        super().__init__()
        self.criterion = loss
        self.user = nn.Embedding(len(spec.inputs["user"].names), width)
        self.item = nn.Embedding(len(spec.inputs["history"].names), width)
        for embedding in (self.user, self.item):
            nn.init.xavier_normal_(embedding.weight)

    def last_states(self, inputs: Inputs) -> Tensor:
        return self.user(inputs["user"])

    def states(self, inputs: Inputs) -> Tensor:
        return repeated(self.last_states(inputs), inputs["history"])

    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        return dot(states, self.item.weight, items)
