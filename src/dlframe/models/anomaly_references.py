"""Classical references of anomaly detection, fitted to all training samples at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor

from dlframe.models.fitted_at_once import FittedAtOnce, rows_of
from dlframe.models.flattening import Flattening
from dlframe.models.nearest import nearest
from dlframe.registry import Count, models
from dlframe.types import DataSpec


class AnomalyReference(FittedAtOnce):
    """Base of references: inputs are vectors, answers are scores."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.flattening = Flattening(spec)

    def partial_fit(self, inputs: Any) -> None:  # type: ignore[override]
        """Keep the samples of a batch, unless the model is fitted."""
        values, _ = self.flattening(inputs)
        super().partial_fit(values.float(), values.new_zeros(len(values)))

    def forward(self, inputs: Any) -> Tensor:
        """Return scores (batch,) of normalized inputs; zeros before any sample."""
        if not self.is_fitted():
            return torch.zeros(rows_of(inputs), device=self.place.device)
        return self.answer(self.flattening(inputs)[0].float())


@models.register(
    "isolation_forest",
    networks=(),
    inputs=("number", "category", "image", "series"),
    targets=("class", "event"),
    task="anomaly",
    unlabeled=True,
    exempt={
        "varies": "trees are drawn when samples have been seen",
        "gradients": "the fit has no gradients",
        "overfits": "trees are grown without a loss",
    },
    search={"num_trees": "choice(100,200,400)", "max_samples": "choice(128,256,1024)"},
)
class IsolationForest(AnomalyReference):
    """Isolation forest: samples that few random cuts part from the others have high scores; by scikit-learn.

    Liu, Ting and Zhou 2008 ("Isolation forest"). The score is 2 to the power of minus the mean length of a sample's paths,
    divided by that of an unsuccessful search in a binary search tree. The trees are kept as arrays, and followed here.

    Args:
        num_trees: Number of trees.
        max_samples: Samples of a tree at most, drawn without replacement.
    """

    def __init__(self, spec: DataSpec, *, num_trees: Count = 100, max_samples: Annotated[int, Interval(ge=2)] = 256) -> None:
        super().__init__(spec)
        self.seed = int(torch.randint(2**31, ()))
        self.num_trees = num_trees
        self.max_samples = max_samples

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Grow the trees, and keep them as arrays (trees, nodes)."""
        from sklearn.ensemble import IsolationForest as Forest

        make: Any = Forest  # of its signature, checkers of types know the default alone

        rows = samples["inputs"]
        if len(rows) < 2:
            return {"unit": np.ones(1)}
        size = min(self.max_samples, len(rows))
        forest = make(n_estimators=self.num_trees, max_samples=size, random_state=self.seed).fit(rows)
        trees = [tree.tree_ for tree in forest.estimators_]
        shape = len(trees), max(tree.node_count for tree in trees)
        kept = {name: np.zeros(shape, kind) for name, kind in NODES.items()}
        for i, tree in enumerate(trees):
            n = tree.node_count
            kept["left"][i, :n], kept["right"][i, :n] = tree.children_left, tree.children_right
            kept["feature"][i, :n], kept["cut"][i, :n] = tree.feature, tree.threshold
            kept["length"][i, :n] = _lengths(tree)
        return {**kept, "unit": _search_length(np.array([size]))}

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the scores of vectors, by the mean length of their paths."""
        if "left" not in self.learned:
            return torch.zeros(len(inputs), device=inputs.device)
        left, right, feature, cut = (self.learned[name] for name in ("left", "right", "feature", "cut"))
        trees = torch.arange(len(left), device=inputs.device)
        node = torch.zeros(len(inputs), len(trees), dtype=torch.long, device=inputs.device)
        for _ in range(left.shape[1]):  # a path is no longer, unless the file is damaged
            inner = left[trees, node] >= 0
            if not inner.any():
                break
            value = inputs.gather(1, feature[trees, node].clamp(min=0)).double()
            below = torch.where(value <= cut[trees, node], left[trees, node], right[trees, node])
            node = torch.where(inner, below, node)
        return 2 ** (-self.learned["length"][trees, node].mean(1) / self.learned["unit"])


NODES = {"left": np.int64, "right": np.int64, "feature": np.int64, "cut": np.float64, "length": np.float64}
"""Kept of each node: children, -1 in a leaf; feature and cut; and of a leaf the length of the path to a single sample."""


def _search_length(samples: np.ndarray) -> np.ndarray:
    """Return the mean length of an unsuccessful search in a binary search tree of some samples."""
    n = np.maximum(samples, 2).astype(float)
    length = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(samples > 2, length, np.where(samples == 2, 1.0, 0.0))


def _lengths(tree: Any) -> np.ndarray:
    """Return the depth of each node of a tree, plus the mean length that its samples would add."""
    depth = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # children come after their parents
        for child in (tree.children_left[node], tree.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    return depth + _search_length(tree.n_node_samples)


@models.register(
    "nearest_neighbors",
    networks=(),
    inputs=("number", "category", "image", "series"),
    targets=("class", "event"),
    task="anomaly",
    unlabeled=True,
    exempt={
        "varies": "nothing is drawn but the samples that are kept of very many",
        "gradients": "distances have no parameters",
        "overfits": "distances have no loss",
    },
    search={"k": "choice(5,10,20,50)"},
)
class NearestNeighbors(AnomalyReference):
    """Distances to the nearest training samples, as they are or relative to those of the neighbors (LOF).

    The local outlier factor of Breunig et al. 2000 ("LOF: identifying density-based local outliers"), for new samples as by
    scikit-learn with novelty=True; or the distance to the k-th neighbor (Ramaswamy et al. 2000). Both assume that training
    samples are normal: anomalies among them are one another's neighbors. Vectors are compared as they are, by Euclid.

    Args:
        k: Number of neighbors.
        score: Local outlier factor (lof), or the distance to the k-th neighbor (distance).
        max_samples: Training samples that are kept; of more, some are drawn.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        k: Count = 20,
        score: Literal["lof", "distance"] = "lof",
        max_samples: Count = 50_000,
    ) -> None:
        super().__init__(spec)
        self.k = k
        self.by = score
        self.max_samples = max_samples
        self.seed = int(torch.randint(2**31, ()))

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keep the samples, and of each the distance to its k-th neighbor and its density."""
        from sklearn.neighbors import NearestNeighbors as Neighbors

        rows = samples["inputs"]
        if len(rows) > self.max_samples:
            chosen = np.random.default_rng(self.seed).choice(len(rows), self.max_samples, replace=False)
            rows = rows[np.sort(chosen)]
        kept = {"rows": np.ascontiguousarray(rows)}
        k = min(self.k, len(rows) - 1)
        if self.by == "lof" and k > 0:
            distance, index = Neighbors(n_neighbors=k).fit(rows).kneighbors()
            reach = np.maximum(distance[index, -1], distance)
            kept |= {"radius": distance[:, -1].astype(np.float64), "density": 1 / (reach.mean(1) + TINY)}
        return kept

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the scores of vectors."""
        rows = self.learned["rows"]
        k = min(self.k, len(rows) - 1) if "radius" in self.learned else min(self.k, len(rows))
        distance, index = nearest(inputs, rows, k or 1)
        if "radius" not in self.learned:
            return distance[:, -1]
        reach = torch.maximum(self.learned["radius"][index], distance)
        density = 1 / (reach.mean(1) + TINY)
        return self.learned["density"][index].mean(1) / density


TINY = 1e-10
"""Added to mean distances, as by scikit-learn: equal samples have none."""
