"""A plugin: which letters of a word are vowels, in words of varying length."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.registry import Count, data, models, tasks
from dlframe.statistics.intervals import bootstrap
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Lazy, Ragged, Split

NAMES = ("consonant", "vowel", "last vowel")


def read_word(file: str) -> np.ndarray:
    """The letters of a word that lies in a file of its own."""
    return np.load(file)


@data.register("words", inputs=("tokens",), targets=("class",))
def words(*, path: str | None = None) -> Dataset:
    """Words of Python's license, each letter a vowel or not; the last vowel of a word is another class.

    Args:
        path: Folder in which each word is put into a file, and read when it is needed; null keeps them in memory.
    """
    text = Path(np.__file__).parent.joinpath("__init__.py").read_text(encoding="utf-8")
    found = sorted({word for word in "".join(c.lower() if c.isalpha() else " " for c in text).split() if len(word) > 2})
    order = np.random.default_rng(0).permutation(len(found))
    chosen = [found[i] for i in order]
    cuts = [0, int(0.6 * len(chosen)), int(0.8 * len(chosen)), len(chosen)]
    parts = [chosen[start:end] for start, end in itertools.pairwise(cuts)]
    vocabulary = sorted({letter for word in parts[0] for letter in word})  # of the training split only
    splits = [_split(part, vocabulary, Path(path) if path else None) for part in parts]
    spec = DataSpec(
        "words",
        inputs={"letters": Field(kind="tokens", dtype="int64", shape=(None,))},
        targets={"tags": Field(kind="class", dtype="int64", shape=(None,), names=NAMES, along="letters")},
        fitted={"vocabulary": vocabulary},
    )
    return Dataset(spec, *splits, source="NumPy's own text", splits="60/20/20 at random")


def _split(part: list[str], vocabulary: list[str], folder: Path | None) -> Split:
    known = {letter: i + 1 for i, letter in enumerate(vocabulary)}
    letters = [np.array([known.get(letter, 0) for letter in word]) for word in part]
    tags = []
    for word in part:
        vowel = np.array([letter in "aeiou" for letter in word]).astype(np.int64)
        if vowel.any():
            vowel[np.flatnonzero(vowel)[-1]] = 2
        tags.append(vowel)
    column: Any = Ragged.of(letters)
    if folder:
        folder.mkdir(exist_ok=True)
        for word, values in zip(part, letters, strict=True):
            np.save(folder / f"{word}.npy", values)
        files = np.array([str(folder / f"{word}.npy") for word in part])
        column = Lazy(read_word, files, version="1", lengths=column.lengths, random=False)
    return Split({"letters": column, "tags": Ragged.of(tags)}, np.array(part))


@models.register("tagger", inputs=("tokens",), targets=("class",), task="tagging")
class Tagger(nn.Module):
    """A bidirectional GRU over letters; padding is never read.

    Args:
        width: Units of the state in each direction.
    """

    def __init__(self, spec: DataSpec, *, width: Count = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1 + len(spec.fitted["vocabulary"]), width)
        self.reader = nn.GRU(width, width, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, len(spec.targets["tags"].names))

    def forward(self, letters: Ragged) -> Tensor:
        """Logits (letters of all words, classes)."""
        padded, lengths = letters.padded()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(padded), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.reader(packed)[0], batch_first=True)
        inside = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return self.head(states[inside])


@models.register(
    "letter_counts",
    networks=(),
    inputs=("tokens",),
    targets=("class",),
    task="tagging",
    exempt={"varies": "It draws nothing.", "overfits": "A letter alone does not tell whether a vowel is the last one."},
)
class LetterCounts(nn.Module):
    """How often each letter that was seen had each tag: a memory that grows, and no gradient."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.classes = len(spec.targets["tags"].names)
        self.letters: dict[int, Tensor] = {}

    def partial_fit(self, letters: Ragged, tags: Ragged) -> None:
        """Count the tags of each letter."""
        for letter, tag in zip(letters.values.tolist(), tags.values.tolist(), strict=True):
            self.letters.setdefault(letter, torch.zeros(self.classes))[tag] += 1

    def get_extra_state(self) -> dict[str, Any]:
        letters = sorted(self.letters)
        return {"letters": letters, "counts": torch.stack([self.letters[i] for i in letters]) if letters else None}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        counts = state["counts"]
        self.letters = {} if counts is None else dict(zip(state["letters"], counts.clone(), strict=True))

    def forward(self, letters: Ragged) -> Tensor:
        """Logits (letters of all words, classes)."""
        unseen = torch.zeros(self.classes)
        return torch.stack([self.letters.get(i, unseen) for i in letters.values.tolist()]).add(0.5).log()


@tasks.register(
    "tagging",
    targets=("class",),
    requires=("class",),
    scores=("target", "probability"),
    metrics={"accuracy": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"}},
    headline="accuracy",
)
class Tagging(Task):
    """A tag for each token."""

    def counts(self, batch: Batch) -> Totals:
        return {"tokens": len(batch["letters"].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        logits = self.model(self.normalize(batch))
        return functional.cross_entropy(logits, batch["tags"].values, reduction="sum") / totals["tokens"]

    def partial_fit(self, batch: Batch) -> None:
        self.model.partial_fit(batch["letters"], batch["tags"])

    def score(self, batch: Batch) -> Scores:
        return {"target": batch["tags"], "probability": self.predict(batch)["probability"]}

    def metrics(self, scores: Scores) -> dict[str, float]:
        right = scores["probability"].values.argmax(1) == scores["target"].values
        return {"accuracy": right.double().mean().item()}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        majority = np.bincount(dataset.train["tags"].values).argmax()
        return "majority tag", {"accuracy": float((dataset.test["tags"].values == majority).mean())}

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        """A bootstrap over words."""
        right = (scores["probability"].values.argmax(1) == scores["target"].values).numpy().astype(float)
        lengths = scores["target"].lengths.numpy()
        sums = np.add.reduceat(right, scores["target"].offsets.numpy()[:-1])
        interval = bootstrap(lambda s, n: s.sum() / n.sum(), sums, lengths, groups=groups, resamples=500)
        return Estimate.of(self.metrics(scores)[metric], interval)

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        return {
            "target": [tags.tolist() for tags in scores["target"]],
            "prediction": [rows.argmax(1).tolist() for rows in scores["probability"]],
            "score": [rows.amax(1).tolist() for rows in scores["probability"]],
        }

    def outputs(self) -> dict[str, Field]:
        return {
            "tag": Field(kind="class", dtype="int64", shape=(None,), names=NAMES),
            "probability": Field(kind="value", dtype="float32", shape=(None, len(NAMES)), names=NAMES),
        }

    def predict(self, batch: Batch) -> dict[str, Ragged]:
        probability = self.model(self.normalize(batch)).softmax(1).float()
        letters = batch["letters"]
        return {"tag": letters.like(probability.argmax(1)), "probability": letters.like(probability)}
