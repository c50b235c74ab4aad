"""Two towers: one of users, one of items."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.models.matching import Inputs, Matching, dot
from dlframe.registry import Count, Fraction, Positive, Probability, models
from dlframe.types import DataSpec, Ragged


@models.register(
    "two_tower",
    inputs=("user", "item"),
    targets=("item", "value"),
    task="ranking",
    sample={"name": "interactions"},
    search={"width": "choice(32,64,128)", "temperature": "tag(log,interval(0.03,0.3))", "length": "choice(10,20,50)"},
)
class TwoTower(Matching):
    """Networks of a user and of an item, whose outputs are compared by their cosine.

    Yi et al. 2019 ("Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys): softmax over the
    items of the batch, each logit less the logarithm of the item's frequency, as popular items are in more batches.
    Differences: frequencies are those of the training split, not estimated from a stream; items of the user's own history
    are no negatives; items have no features besides their identity. The tower of a user reads the mean embedding of the last
    items, as Covington et al. 2016 ("Deep neural networks for YouTube recommendations"), and an embedding of the user, which
    at random is that of new users.

    Args:
        width: Numbers in an embedding, and in the output of a tower.
        hidden: Units of the hidden layers of each tower.
        length: Items of the history that are read.
        dropout: Dropout probability of hidden units.
        user_dropout: Probability with which a training user counts as new; 1 leaves the embedding of users out.
        temperature: Divisor of the cosine.
        loss: Loss: softmax over the items of the batch with corrected frequencies (in_batch), softmax over all items, or
            pairwise (bpr) or log loss (pointwise) against drawn items.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: Count = 64,
        hidden: tuple[Count, ...] = (128,),
        length: Count = 20,
        dropout: Probability = 0.1,
        user_dropout: Fraction = 0.5,
        temperature: Positive = 0.1,
        loss: Literal["in_batch", "softmax", "bpr", "pointwise"] = "in_batch",
    ) -> None:
        super().__init__()
        self.criterion, self.length, self.user_dropout, self.temperature = loss, length, user_dropout, temperature
        users = len(spec.inputs["user"].names)
        self.item = nn.Embedding(len(spec.inputs["history"].names), width)
        self.user = nn.Embedding(users + 1, width)  # the last one is that of new users
        for table in (self.item, self.user):
            nn.init.normal_(table.weight, std=0.05)
        self.towers = nn.ModuleList(_tower(inputs * width, hidden, width, dropout) for inputs in (2, 1))
        self.vectors: Tensor | None = None

    def begin_scoring(self) -> None:
        """Compute the outputs of all items once for the whole split."""
        with torch.no_grad():
            self.vectors = self.items()

    def items(self) -> Tensor:
        """Return the outputs of the tower of all items, (items, width)."""
        return functional.normalize(self.towers[1](self.item.weight), dim=1)

    def states(self, inputs: Inputs) -> Tensor:
        history: Ragged = inputs["history"]
        padded, lengths = history.padded()
        inside = torch.arange(padded.shape[1], device=padded.device) < lengths.to(padded.device).unsqueeze(1)
        embedded = self.item(padded) * inside.unsqueeze(2)
        # Sums of the last items before each; within a user, so that no other's numbers round them.
        sums = functional.pad(embedded.cumsum(1), (0, 0, 1, 0))[:, :-1]
        windows = sums - functional.pad(sums, (0, 0, self.length, 0))[:, : sums.shape[1]]
        count = torch.arange(padded.shape[1], device=padded.device).clamp(max=self.length)
        means = windows / count.clamp(min=1).view(1, -1, 1)
        user = self.of_user(inputs["user"]).unsqueeze(1).expand_as(means)
        return self.tower_of_user(torch.cat([means, user], 2)[inside])

    def last_states(self, inputs: Inputs) -> Tensor:
        history: Ragged = inputs["history"]
        padded, lengths = history.padded()
        place, lengths = torch.arange(padded.shape[1], device=padded.device), lengths.to(padded.device).unsqueeze(1)
        read = (place < lengths) & (place >= lengths - self.length)
        means = (self.item(padded) * read.unsqueeze(2)).sum(1) / read.sum(1, keepdim=True).clamp(min=1)
        return self.tower_of_user(torch.cat([means, self.of_user(inputs["user"])], 1))

    def of_user(self, user: Tensor) -> Tensor:
        """Return embeddings of users (batch, width); that of new users for -1, and for some in training."""
        last = self.user.num_embeddings - 1
        known = torch.where(user < 0, last, user)
        if self.user_dropout == 1:
            known = torch.full_like(known, last)
        elif self.training and self.user_dropout:
            known = torch.where(torch.rand(len(user), device=user.device) < self.user_dropout, last, known)
        return self.user(known)

    def tower_of_user(self, vectors: Tensor) -> Tensor:
        """Return outputs (n, width) of mean and user (n, 2 width), divided by the temperature."""
        return functional.normalize(self.towers[0](vectors), dim=1) / self.temperature

    def match(self, states: Tensor, items: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() or self.vectors is None or self.training:
            self.vectors = self.items()
        return dot(states, self.vectors, items)


def _tower(inputs: int, hidden: tuple[int, ...], width: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size, units in itertools.pairwise((inputs, *hidden)):
        layers += [nn.Linear(size, units), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else inputs, width))
