"""Graph convolution over users and items."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.models.matching import Inputs, Matching, dot, repeated
from dlframe.registry import Count, models
from dlframe.types import DataSpec, Split


class Summed(torch.autograd.Function):
    """Products of a symmetric sparse matrix and nodes (nodes, width).

    The gradient is a product with the same matrix: torch would transpose it at each step, for most of the time of a step.
    """

    @staticmethod
    def forward(ctx: Any, graph: Tensor, nodes: Tensor) -> Tensor:
        ctx.graph = graph
        return product(graph, nodes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, product(ctx.graph, gradients[0])


def product(graph: Tensor, nodes: Tensor) -> Tensor:
    """Return the product in the precision of the graph, since a CPU has no sparse ones of bfloat16, in that of the nodes."""
    with torch.autocast(nodes.device.type, enabled=False):
        return torch.sparse.mm(graph, nodes.to(graph.dtype)).to(nodes.dtype)


@models.register(
    "lightgcn",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
)
class LightGCN(Matching):
    """Embeddings of users and items, averaged over their neighbors in the graph of training interactions.

    He et al. 2020 (arXiv 2002.02126): a layer replaces each embedding by the sum of those of its neighbors, divided by the
    square root of the product of the degrees; scores are products of the means over all layers, the embeddings included. The
    regularization is the optimizer's weight decay.

    Args:
        width: Numbers in an embedding.
        depth: Number of layers.
        loss: Loss: pairwise (bpr), log loss of seen and unseen items (pointwise), or softmax over all items.
    """

    new_users = False

    def __init__(
        self, spec: DataSpec, *, width: Count = 64, depth: Count = 2, loss: Literal["bpr", "pointwise", "softmax"] = "bpr"
    ) -> None:
        super().__init__()
        self.criterion, self.depth = loss, depth
        self.users = len(spec.inputs["user"].names)
        self.embedding = nn.Embedding(self.users + len(spec.inputs["history"].names), width)  # users, then items
        nn.init.xavier_uniform_(self.embedding.weight)
        self.edges = torch.zeros(2, 0, dtype=torch.int64)
        self.graph: Tensor | None = None
        self.nodes: Tensor | None = None

    def prepare(self, train: Split) -> None:
        """Take the interactions of the training split as edges."""
        history = train["history"]
        users = np.repeat(train["user"], history.lengths)
        self.set_extra_state({"edges": torch.from_numpy(np.stack([users, history.values]))})

    def get_extra_state(self) -> dict[str, Tensor]:
        return {"edges": self.edges}

    def set_extra_state(self, state: Any) -> None:
        self.edges, self.graph, self.nodes = state["edges"].cpu().clone(), None, None

    def begin_scoring(self) -> None:
        """Propagate once for the whole split."""
        with torch.no_grad():
            self.nodes = self.propagate()

    def propagate(self) -> Tensor:
        """Return the means over layers, (users + items, width)."""
        weight = self.embedding.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        if self.graph is None or (self.graph.device, self.graph.dtype) != (weight.device, dtype):
            self.graph = self._normalized().to(weight.device, dtype)
        layers = [weight]
        for _ in range(self.depth):
            layers.append(Summed.apply(self.graph, layers[-1]))
        return torch.stack(layers).mean(0)

    def _normalized(self) -> Tensor:
        user, item = self.edges[0], self.edges[1] + self.users
        rows, columns, size = torch.cat([user, item]), torch.cat([item, user]), self.embedding.num_embeddings
        degree = torch.bincount(rows, minlength=size).float()
        weights = (degree[rows] * degree[columns]).rsqrt()
        graph = torch.sparse_coo_tensor(torch.stack([rows, columns]), weights, (size, size), check_invariants=True)
        with warnings.catch_warnings():  # that CSR is in beta; its products take a quarter of the time of those of COO
            warnings.filterwarnings("ignore", "Sparse CSR")
            return graph.coalesce().to_sparse_csr()

    def last_states(self, inputs: Inputs) -> Tensor:
        if torch.is_grad_enabled() or self.nodes is None:
            self.nodes = self.propagate()
        return self.nodes[inputs["user"]]

    def states(self, inputs: Inputs) -> Tensor:
        return repeated(self.last_states(inputs), inputs["history"])

    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        assert self.nodes is not None, "states come first"
        return dot(states, self.nodes[self.users :], items)
