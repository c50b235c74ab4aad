"""Anomaly detection."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from dlframe.readers.boxes.frames import place_of
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import normal_classes
from dlframe.registry import Probability, tasks
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Field, Ragged, Split, TrainingError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES = ("normal", "anomaly")

FITTED = 10_000
"""Training samples at most, evenly spaced, that a model sees before its training."""

PART = 256
"""Samples that it sees at once."""


@tasks.register(
    "anomaly",
    targets=("class", "mask", "event"),
    requires=("class",),
    scores=("target", "score"),
    metrics={
        "f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "auroc": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "average_precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min"},
    },
    headline="f1",
    monitor="loss",
    trained_on="normal",
    sample={"name": "synthetic_fraud"},
)
class Anomaly(Task):
    """Anomaly score of each sample, from a model of normal samples.

    The model is trained on normal samples only: labels say which samples of the training split are left out, and are not used
    otherwise; unlabeled samples are all used. A sample is flagged if its score is above the threshold, a quantile of the scores
    of the normal samples of the validation split. The positive class of precision, recall and F1 is the anomaly. AUROC
    and average precision (area of the steps of the precision-recall curve; equal scores are one step) need no threshold. The
    loss is the mean score of normal samples; it selects the epoch.

    A model returns scores (batch,), larger for what is more unusual, of normalized inputs. It may have `losses(inputs)`, the
    loss (batch,) in training; `prepare(parts)`, which receives training samples in parts before the training; and
    `maps(inputs)`, scores of pixels (batch, height, width). A model without networks has `partial_fit(inputs)`.

    Args:
        anomalies: Names of the classes that are anomalies; empty for what the data say, all classes but one called "normal"
            (or good, ok, ...), the rarer one of two classes, or the first one of several.
        quantile: Quantile of the scores of normal validation samples that is the threshold: with 0.99, one of 100 normal
            samples is flagged.
        headline: Primary metric.
    """

    model: Any
    anomalous: Tensor
    threshold: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        anomalies: tuple[str, ...] = (),
        quantile: Probability = 0.99,
        headline: Literal["f1", "precision", "recall", "auroc", "average_precision"] = "f1",
    ) -> None:
        super().__init__(spec, model)
        (self.target,) = spec.of_kind("class", spec.targets)
        self.normal, self.how = normal_classes(spec, anomalies)
        self.quantile = quantile
        is_anomaly = [name not in self.normal for name in spec.classes]
        self.register_buffer("anomalous", torch.tensor(is_anomaly), persistent=False)
        self.register_buffer("threshold", torch.tensor(math.inf, dtype=torch.float64))

    # --- learning

    def prepare(self, train: Split) -> None:
        """Show training samples that are not labeled as anomalies to a model that has a `prepare`.

        Raises:
            TrainingError: There is none.
        """
        usable = ~self.anomalous.cpu().numpy()[train[self.target]]
        if train.labelled is not None:
            usable = usable | ~train.labelled
        rows = np.flatnonzero(usable)
        if not len(rows):
            raise TrainingError(f"task=anomaly: no training sample of {self.spec.name} is normal.")
        if callable(hook := getattr(self.model, "prepare", None)):
            hook(self._parts(train, rows[np.unique(np.linspace(0, len(rows) - 1, FITTED).astype(int))]))

    def _parts(self, train: Split, rows: np.ndarray) -> Iterator[Any]:
        """Yield the normalized inputs of some rows in parts."""
        for index in np.split(rows, range(PART, len(rows), PART)):
            part = train.take(index)
            columns: dict[str, Tensor | Ragged] = {}
            for name in self.spec.inputs:
                values = part[name]
                if not isinstance(values, np.ndarray):
                    raise TrainingError(f"model: '{name}' must be an array in memory, of samples of one shape.")
                columns[name] = torch.from_numpy(np.ascontiguousarray(values))
            yield self.normalize(self.features(Batch(columns, torch.from_numpy(index), self.spec)))

    def usable(self, batch: Batch) -> Tensor:
        """Return whether a sample may be learned from, (batch,) bool: one that no label calls an anomaly."""
        flagged = self.anomalous[batch[self.target]]
        return ~(flagged if batch.labelled is None else flagged & batch.labelled)

    def counts(self, batch: Batch) -> Totals:
        """Count the samples that are learned from."""
        return {"usable": self.usable(batch).sum()}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the loss of the samples that no label calls an anomaly, a sum divided by the step's number of them."""
        inputs = self.normalize(batch)
        losses = self.model.losses(inputs) if hasattr(self.model, "losses") else self.scores(inputs)
        return (losses * self.usable(batch)).sum() / torch.as_tensor(totals["usable"]).clamp(min=1)

    def partial_fit(self, batch: Batch) -> None:
        """Show the samples that no label calls an anomaly to the model."""
        usable = self.usable(batch)
        if not usable.all():
            columns = {name: batch[name][usable] for name in self.spec.inputs}
            batch = Batch(columns, batch.index[usable], self.spec)
        if len(batch):
            self.model.partial_fit(self.normalize(batch))

    # --- scoring

    def begin_scoring(self) -> None:
        if callable(hook := getattr(self.model, "begin_scoring", None)):
            hook()

    def scores(self, inputs: Any) -> Tensor:
        """Return the scores (batch,) of normalized inputs.

        Raises:
            ConfigError: The model returns something else, such as logits.
        """
        found = self.model(inputs)
        if found.ndim != 1:
            raise ConfigError(
                f"model: must return one anomaly score per sample. Received: shape {tuple(found.shape)}. Try: "
                "model=autoencoder, or another of docs/anomaly_detection.md"
            )
        return found

    def score(self, batch: Batch) -> Scores:
        """Return whether a sample is an anomaly, and its score, (batch,)."""
        return {"target": self.anomalous[batch[self.target]].long(), "score": self.scores(self.normalize(batch)).double()}

    def calibrate(self, scores: Scores) -> None:
        """Choose the threshold: a quantile of the scores of normal samples; infinite without any."""
        normal = scores["score"][scores["target"] == 0].numpy()
        self.threshold.fill_(float(np.quantile(normal, self.quantile)) if len(normal) else math.inf)

    def flagged(self, score: Tensor) -> Tensor:
        """Return whether scores are above the threshold, as 0 and 1."""
        return (score > self.threshold.to(score.device)).long()

    def metrics(self, scores: Scores) -> dict[str, float]:
        score, target = scores["score"], scores["target"]
        if score.isnan().any():
            return dict.fromkeys(("f1", "precision", "recall", "auroc", "average_precision", "loss"), math.nan)
        normal = score[target == 0]
        loss = normal.mean().item() if len(normal) else math.nan
        return {**at_threshold(self.flagged(score), target), **ranked(score, target), "loss": loss}

    # --- results

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Flag test samples at random, as many as there are anomalies."""
        target, flags = self._targets(dataset), self._random_flags(dataset)
        return "base rate", {**at_threshold(flags, target), **ranked(torch.zeros(len(target)), target)}

    def _targets(self, dataset: Dataset) -> Tensor:
        return self.anomalous.cpu()[torch.from_numpy(np.ascontiguousarray(dataset.test[self.target]))].long()

    def _random_flags(self, dataset: Dataset) -> Tensor:
        target = self._targets(dataset)
        chance = torch.rand(len(target), generator=torch.Generator().manual_seed(0))
        return (chance < target.double().mean()).long()

    def baseline_predictions(self, dataset: Dataset) -> dict[str, list]:
        flags = self._random_flags(dataset).tolist()
        return {"prediction": [CLASSES[i] for i in flags], "score": [0.0] * len(flags)}

    def forms(self) -> dict[str, dict[str, Any]]:
        positive = {"average": "positive", "positive": CLASSES[1]}
        found = {name: {"form": name, **positive} for name in ("f1", "precision", "recall")}
        return found | {name: {"form": name, "column": "score", **positive} for name in ("auroc", "average_precision")}

    def notes(self, scores: Scores) -> list[str]:
        """Tell the threshold, and what is an anomaly."""
        names = [printable(name) for name in self.spec.classes if name not in self.normal]
        shown = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        how = f" (normal is {self.how}; task.anomalies=[...] says otherwise)" if self.how else ""
        cut = f"{self.threshold.item():.4g}, the {self.quantile:g} quantile of normal validation samples"
        count = int(scores["target"].sum())
        told = [f"{count:,} of {len(scores['target']):,} test samples are anomalies: {shown}{how}", f"flagged above {cut}"]
        if self.threshold.isinf():
            told[1] = "no threshold: the validation split has no normal sample"
        if not count or count == len(scores["target"]):
            told.append(f"the test split has no {'anomaly' if not count else 'normal sample'}: some metrics are undefined")
        return told

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return target, prediction ("normal" or "anomaly"), the anomaly score, and the class of the data."""
        return {
            "target": [CLASSES[i] for i in scores["target"].tolist()],
            "prediction": [CLASSES[i] for i in self.flagged(scores["score"]).tolist()],
            "score": scores["score"].tolist(),
            "class": [self.spec.classes[i] for i in split[self.target].tolist()],
        }

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot the scores by class with the threshold, and the precision-recall curve."""
        from dlframe import plots

        score, target, threshold = scores["score"].numpy(), scores["target"].numpy(), self.threshold.item()
        if np.isnan(score).any():
            return super().figures(scores, dataset)
        labels = np.asarray(dataset.test[self.target])
        drawn = {
            "scores": plots.score_histograms(score, labels, self.spec.classes, self.normal, threshold, title=self.spec.name)
        }
        if target.any():
            drawn["precision_recall"] = plots.threshold_curve(score, target, threshold, title=self.spec.name)
        return drawn | self._heat_maps(score, target, dataset) | super().figures(scores, dataset)

    def _heat_maps(self, score: np.ndarray, target: np.ndarray, dataset: Dataset) -> dict[str, Figure]:
        """Plot scores of pixels over the images with the highest scores, and over normal ones."""
        from dlframe import plots

        columns = self.spec.of_kind("image", self.spec.inputs)
        if not hasattr(self.model, "maps") or not columns or not isinstance(dataset.test[columns[0]], np.ndarray):
            return {}
        order = np.argsort(-score, kind="stable")
        chosen = np.concatenate([order[target[order] == 1][:SHOWN], order[target[order] == 0][: SHOWN // 2]])
        maps = self.maps(dataset.test, chosen)
        masks = [dataset.test[name][chosen] for name in self.spec.of_kind("mask", self.spec.targets)]
        names = [self.spec.classes[i] for i in np.asarray(dataset.test[self.target])[chosen]]
        flags = score[chosen] > self.threshold.item()
        images = [dataset.picture(columns[0], int(i)) for i in chosen]
        height, width = dataset.test[columns[0]].shape[2:]
        fit = Decoding.of(self.spec.fitted).fit
        places = [place_of(image.shape[1:], (height, width), fit) for image in images]
        mask = masks[0] if masks else None
        return {"heat_maps": plots.heat_maps(images, maps, score[chosen], names, flags, mask, places)}

    @torch.no_grad()
    def maps(self, split: Split, index: np.ndarray) -> np.ndarray:
        """Return the scores of the pixels of some samples, (samples, height, width)."""
        return torch.cat([self.model.maps(inputs).cpu() for inputs in self._parts(split, index)]).numpy()

    # --- use

    def outputs(self) -> dict[str, Field]:
        return {
            "prediction": Field(kind="class", dtype="int64", names=CLASSES),
            "score": Field(kind="value", dtype="float64"),
            "threshold": Field(kind="value", dtype="float64"),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Return verdict, score and threshold, (batch,)."""
        score = self.scores(self.normalize(batch)).double()
        return {"prediction": self.flagged(score), "score": score, "threshold": self.threshold.expand(len(score)).clone()}


SHOWN = 8
"""Anomalies of which heat maps are drawn, and half as many normal images."""


def at_threshold(flags: Tensor, target: Tensor) -> dict[str, float]:
    """Return F1, precision and recall of flags (samples,) of 0 and 1; NaN for 0 / 0."""
    hits, flagged, actual = (float(x.sum()) for x in (flags * target, flags, target))
    return {
        "f1": 2 * hits / (flagged + actual) if flagged + actual else math.nan,
        "precision": hits / flagged if flagged else math.nan,
        "recall": hits / actual if actual else math.nan,
    }


def ranked(score: Tensor, target: Tensor, names: tuple[str, ...] = ("auroc", "average_precision")) -> dict[str, float]:
    """Return AUROC and average precision of scores (samples,); NaN without anomalies, and the AUROC without normal samples."""
    some, others = bool(target.any()), bool((target == 0).any())
    if not some:
        return dict.fromkeys(names, math.nan)
    # Torchmetrics maps scores that are not in [0, 1] through a sigmoid, which rounds: ranks are not touched.
    rank = score.double().unique(return_inverse=True)[1].double()
    rank = rank / rank.max().clamp(min=1)
    found = {
        "auroc": lambda: binary_auroc(rank, target).item() if others else math.nan,
        "average_precision": lambda: binary_average_precision(rank, target).item(),
    }
    return {name: found[name]() for name in names}
