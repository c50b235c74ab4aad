"""Classical references, fitted to all training samples at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn

from dlframe.models.fitted_at_once import FittedAtOnce
from dlframe.models.tabular_inputs import by_name, cardinalities_of
from dlframe.registry import Count, Fraction, NonNegative, Positive, models
from dlframe.types import ConfigError, DataSpec, Ragged


@models.register(
    "nb_logistic",
    networks=(),
    inputs=("tokens",),
    exempt={
        "varies": "nothing is drawn",
        "gradients": "the fit has no gradients of its own",
        "overfits": "the penalty keeps the weights small",
    },
    search={"C": "tag(log,interval(0.01,100))", "beta": "interval(0,1)", "ngrams": "range(1,4)"},
)
class NBLogistic(FittedAtOnce):
    """Logistic regression of the n-grams of a text, weighted by naive Bayes.

    NBSVM (Wang and Manning 2012, "Baselines and bigrams") with the logistic loss: feature j is 1 if n-gram j occurs, times
    log((p_j / |p|) / (q_j / |q|)), where p and q count the texts of a class and of the others that have it, plus alpha. The
    weights are interpolated with their mean size, the intercept likewise. Several classes are fitted one against the rest.

    Args:
        ngrams: Words of the longest n-gram.
        min_count: Training texts in which an n-gram must occur.
        C: Inverse strength of the L2 penalty, as in scikit-learn.
        alpha: Count added to each n-gram.
        beta: Fraction of the fitted weights; the rest is their mean size, as in naive Bayes.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        ngrams: Count = 2,
        min_count: Count = 1,
        C: Positive = 1.0,
        alpha: Positive = 1.0,
        beta: Fraction = 0.5,
    ) -> None:
        super().__init__(spec)
        self.ngrams = ngrams
        self.min_count = min_count
        self.C = C
        self.alpha = alpha
        self.beta = beta
        # Exact codes of n-grams, as long as they fit into 63 bits.
        self.base = 3 + len(spec.fitted["vocabulary"])
        if self.base**ngrams >= 2**63:
            raise ConfigError(
                f"model.ngrams: are too long for {self.base - 3:,} words. Received: {ngrams}. Try: data.vocabulary=10000"
            )

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fit one regression per class, or one for two."""
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression

        lengths = torch.from_numpy(samples["inputs lengths"])
        tokens = Ragged(torch.from_numpy(samples["inputs"]), torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))
        text, gram = (array.numpy() for array in self._features(tokens))
        keys, column, counts = np.unique(gram, return_inverse=True, return_counts=True)
        frequent = counts >= min(self.min_count, counts.max())
        kept = frequent[column]
        place = np.cumsum(frequent) - 1
        keys = keys[frequent]
        matrix = csr_matrix(
            (np.ones(kept.sum(), np.float64), (text[kept], place[column[kept]])), shape=(len(lengths), len(keys))
        )
        labels = samples["targets"]
        several = range(self.classes) if self.classes > 2 else (1,)
        weights, intercepts = np.zeros((len(keys), len(several))), np.zeros(len(several))
        for i, label in enumerate(several):
            own = labels == label
            if own.all() or not own.any():
                intercepts[i] = 10.0 if own.any() else -10.0
                continue
            p = self.alpha + np.asarray(matrix[own].sum(0)).ravel()
            q = self.alpha + np.asarray(matrix[~own].sum(0)).ravel()
            ratio = np.log(p / p.sum()) - np.log(q / q.sum())
            fitted = LogisticRegression(C=self.C, tol=1e-4, max_iter=1000).fit(matrix.multiply(ratio).tocsr(), own)
            w, b = fitted.coef_[0], fitted.intercept_[0]
            weights[:, i] = ratio * (self.beta * w + (1 - self.beta) * np.abs(w).mean())
            intercepts[i] = self.beta * b
        return {"keys": keys, "weights": weights, "intercepts": intercepts}

    def answer(self, inputs: Ragged) -> Tensor:
        """Sum the weights of the n-grams of each text."""
        keys, weights, intercepts = (self.learned[name] for name in ("keys", "weights", "intercepts"))
        text, gram = self._features(inputs)
        place = torch.searchsorted(keys, gram).clamp(max=len(keys) - 1)
        known = keys[place] == gram
        total = intercepts.expand(len(inputs), -1).clone()
        return total.index_add_(0, text[known], weights[place[known]])

    def _features(self, tokens: Ragged) -> tuple[Tensor, Tensor]:
        """Return text and code of each n-gram of each text, once, by text and code."""
        lengths, values = tokens.lengths, tokens.values.long() + 1
        text = torch.repeat_interleave(torch.arange(len(tokens), device=values.device), lengths)
        texts, grams, codes = [text], [values], values
        for n in range(2, self.ngrams + 1):
            codes = codes[:-1] * self.base + values[n - 1 :]
            inside = text[: len(codes)] == text[n - 1 :]
            texts.append(text[: len(codes)][inside])
            grams.append(codes[inside])
        text, gram = torch.cat(texts), torch.cat(grams)
        # Two stable sorts take a fraction of the time of torch.unique of pairs.
        order = gram.argsort(stable=True)
        order = order[text[order].argsort(stable=True)]
        text, gram = text[order], gram[order]
        first = torch.ones(len(text), dtype=torch.bool, device=text.device)
        first[1:] = (text[1:] != text[:-1]) | (gram[1:] != gram[:-1])
        return text[first], gram[first]


@models.register(
    "tabular_logistic",
    networks=(),
    inputs=("number", "category"),
    exempt={
        "varies": "nothing is drawn",
        "gradients": "the fit has no gradients of its own",
        "overfits": "the penalty keeps the weights small",
    },
    search={"C": "tag(log,interval(0.001,100))"},
)
class TabularLogistic(FittedAtOnce):
    """Logistic regression of the rows of a table, by scikit-learn.

    Standardized numbers, with 0 and an indicator for missing ones, and an indicator per value of a category.

    Args:
        C: Inverse strength of the L2 penalty.
        class_weight: Weights of classes: none, or inverse to their training samples (balanced).
    """

    def __init__(self, spec: DataSpec, *, C: Positive = 1.0, class_weight: Literal["none", "balanced"] = "none") -> None:
        super().__init__(spec)
        self.C = C
        self.class_weight = class_weight
        self.sizes = cardinalities_of(spec)

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fit a regression of the targets' classes."""
        from sklearn.linear_model import LogisticRegression

        rows = self._rows(_columns(samples)).numpy()
        weight = "balanced" if self.class_weight == "balanced" else None
        own = np.unique(samples["targets"])
        count = 1 if self.classes == 2 else self.classes
        weights, intercepts = np.zeros((rows.shape[1], count)), np.full(count, -10.0)
        if len(own) == 1:
            intercepts[:] = np.where(np.arange(self.classes)[-count:] == own[0], 10.0, -10.0)
            return {"weights": weights, "intercepts": intercepts}
        fitted = LogisticRegression(C=self.C, class_weight=weight, max_iter=1000).fit(rows, samples["targets"])
        if count == 1:
            weights[:, 0], intercepts[0] = fitted.coef_[0], fitted.intercept_[0]
        elif len(own) == 2:
            weights[:, own[1]], intercepts[own] = fitted.coef_[0], [0.0, fitted.intercept_[0]]
        else:
            weights[:, own], intercepts[own] = fitted.coef_.T, fitted.intercept_
        return {"weights": weights, "intercepts": intercepts}

    def answer(self, inputs: Any) -> Tensor:
        """Return log odds, or a logit per class."""
        rows = self._rows(by_name(inputs))
        # Sums of products, so that a row is answered the same in any batch.
        return (rows.unsqueeze(2) * self.learned["weights"]).sum(1) + self.learned["intercepts"]

    def _rows(self, columns: dict[str, Tensor]) -> Tensor:
        parts = []
        if (numbers := columns.get("numbers")) is not None:
            parts += [numbers.double().nan_to_num(0.0), numbers.isnan().double()]
        if (codes := columns.get("categories")) is not None:
            parts += [nn.functional.one_hot(codes[:, i].long(), size).double() for i, size in enumerate(self.sizes)]
        return torch.cat(parts, 1)


def _columns(samples: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the columns of a table among kept samples, by name."""
    kept = {name: torch.from_numpy(array) for name, array in samples.items() if name != "targets"}
    return by_name(kept["inputs"]) if "inputs" in kept else kept


@models.register(
    "boosting",
    networks=(),
    inputs=("number", "category"),
    exempt={
        "varies": "nothing is drawn",
        "gradients": "the fit has no gradients of its own",
        "overfits": "a leaf has more samples than a handful",
    },
    search={"learning_rate": "tag(log,interval(0.01,0.3))", "num_trees": "range(100,600)", "num_leaves": "choice(7,15,31)"},
)
class Boosting(FittedAtOnce):
    """Gradient boosting of trees on the rows of a table, by scikit-learn.

    HistGradientBoostingClassifier (as LightGBM, Ke et al. 2017), without early stopping. Categories are numbers in the order
    of their codes; a missing one is a value of its own. The trees are kept as arrays, and followed here.

    Args:
        learning_rate: Factor of each tree.
        num_trees: Number of trees, per class if these are more than two.
        num_leaves: Leaves of a tree at most.
        min_samples_leaf: Samples of a leaf at least; with few positives, small leaves collapse.
        l2: L2 penalty of the leaves.
        max_features: Fraction of the columns that each split may use, drawn anew.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        learning_rate: Positive = 0.05,
        num_trees: Count = 300,
        num_leaves: Annotated[int, Interval(ge=2)] = 15,
        min_samples_leaf: Count = 50,
        l2: NonNegative = 1.0,
        max_features: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    ) -> None:
        super().__init__(spec)
        self.max_features = max_features
        self.seed = int(torch.randint(2**31, ()))
        self.learning_rate = learning_rate
        self.num_trees = num_trees
        self.num_leaves = num_leaves
        self.min_samples_leaf = min_samples_leaf
        self.l2 = l2

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Grow the trees, and keep them as arrays (trees, nodes)."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        # Of its signature, checkers of types know the default alone.
        make: Any = HistGradientBoostingClassifier
        model = make(
            learning_rate=self.learning_rate,
            max_iter=self.num_trees,
            max_leaf_nodes=self.num_leaves,
            min_samples_leaf=self.min_samples_leaf,
            l2_regularization=self.l2,
            max_features=self.max_features,
            early_stopping=False,
            random_state=self.seed,
        )
        own = np.unique(samples["targets"])
        start = np.full(1 if self.classes == 2 else self.classes, -10.0)
        if len(own) == 1:
            start[:] = np.where(np.arange(self.classes)[-len(start) :] == own[0], 10.0, -10.0)
            return {"start": start}
        model.fit(self._rows(_columns(samples)).numpy(), samples["targets"])
        groups = model._predictors  # by iteration, and within it by class
        trees = [tree.nodes for group in groups for tree in group]
        size = max(map(len, trees))
        kept: dict[str, np.ndarray] = {}
        for name, dtype in NODES.items():
            kept[name] = np.zeros((len(trees), size), dtype)
            for row, nodes in zip(kept[name], trees, strict=True):
                row[: len(nodes)] = nodes[name]
        column = np.arange(len(start)) if len(start) == 1 else (own if len(own) > 2 else own[1:])
        kept["column"] = np.tile(column, len(groups))
        start[column] = np.asarray(model._baseline_prediction).ravel()
        if len(start) > 1 and len(own) == 2:
            start[own[0]] = 0.0
        return kept | {"start": start}

    def answer(self, inputs: Any) -> Tensor:
        """Add up the leaves that a row reaches in each tree."""
        rows = self._rows(by_name(inputs))
        total = self.learned["start"].expand(len(rows), -1).clone()
        if "value" not in self.learned:
            return total
        trees = torch.arange(len(self.learned["value"]), device=rows.device)
        node = torch.zeros(len(rows), len(trees), dtype=torch.long, device=rows.device)
        for _ in range(self.learned["value"].shape[1]):  # a path is no longer, unless the file is damaged
            inner = self.learned["is_leaf"][trees, node] == 0
            if not inner.any():
                break
            value = rows.gather(1, self.learned["feature_idx"][trees, node])
            left = (value <= self.learned["num_threshold"][trees, node]) | (
                value.isnan() & (self.learned["missing_go_to_left"][trees, node] != 0)
            )
            below = torch.where(left, self.learned["left"][trees, node], self.learned["right"][trees, node])
            node = torch.where(inner, below, node)
        return total.index_add_(1, self.learned["column"], self.learned["value"][trees, node])

    def _rows(self, columns: dict[str, Tensor]) -> Tensor:
        parts = []
        if (numbers := columns.get("numbers")) is not None:
            parts.append(numbers.double())
        if (codes := columns.get("categories")) is not None:
            parts.append(codes.double().masked_fill(codes == 0, torch.nan))  # 0 is a missing value
        return torch.cat(parts, 1)


NODES = {
    "value": np.float64,
    "feature_idx": np.int64,
    "num_threshold": np.float64,
    "missing_go_to_left": np.uint8,
    "left": np.int64,
    "right": np.int64,
    "is_leaf": np.uint8,
}
"""Fields of the nodes of scikit-learn's trees, in its private TreePredictor; checked with version 1.9."""
