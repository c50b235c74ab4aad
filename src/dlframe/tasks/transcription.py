"""Transcription of speech."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.audio.files import read_audio
from dlframe.readers.audio.mel import HOP, MELS, STRIDE, WINDOW, mel_filters
from dlframe.registry import Count, NonNegative, tasks
from dlframe.statistics.transcripts.beam import beam_search, fit_letters
from dlframe.statistics.transcripts.edits import aligned, characters, edits, words
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Field, Ragged, Split, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-8
"""Power added to each mel filter: the noise of 16 bits, so that digital silence has a logarithm."""

LARGEST = 2**23
"""Entries of a model of letters."""

SMALLEST = 1e-2
"""Standard deviation of a feature over time, below which it is constant."""

RATES = {
    "wer": ("word_errors", "words"),
    "cer": ("letter_errors", "letters"),
    "insertions": ("insertions", "words"),
    "deletions": ("deletions", "words"),
    "substitutions": ("substitutions", "words"),
}
"""Metric -> sums of which it is the quotient: of edits, and of words or letters of the targets."""


@tasks.register(
    "transcription",
    targets=("tokens",),
    requires=("tokens",),
    scores=("target", "transcript", "confidence", "loss"),
    metrics={
        "wer": {"better": "min", "low": 0.0, "unit": "fraction"},
        "cer": {"better": "min", "low": 0.0, "unit": "fraction"},
        "insertions": {"better": "min", "low": 0.0, "unit": "fraction"},
        "deletions": {"better": "min", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "substitutions": {"better": "min", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min", "low": 0.0},
    },
    headline="wer",
    monitor="cer",
    sample={"name": "tones", "utterances": 60},
)
class Transcription(Task):
    """Transcription of speech, trained by connectionist temporal classification (CTC).

    Graves et al. 2006. Features are logarithms of the power in mel filters, every 10 ms, each normalized over its utterance.
    The model returns the letters' logits of each step of 20 ms, and first that of the blank. The letters of a transcript are
    those of the most probable path: equal neighbors merged, then blanks removed.

    With decoding=beam, the letters are those of the best text of a beam search over paths, with a model of the letters of the
    training transcripts.

    Error rates are the edits of all utterances divided by the words, or letters, of all targets. They can exceed 1. Spaces
    are letters.

    Args:
        decoding: Search for the text: the most probable path (greedy), or the most probable text (beam).
        beam_width: Texts that a beam search keeps at each step.
        lm_order: Letters that the model of letters looks at, the predicted one included.
        lm_weight: Weight of its logarithm in the score of a text; 0 for none.
        length_bonus: Addition to the score for each letter, against the preference of both models for short texts.
    """

    filters: Tensor
    window: Tensor
    letters: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        decoding: Literal["greedy", "beam"] = "greedy",
        beam_width: Count = 8,
        lm_order: Annotated[int, Interval(ge=1, le=4)] = 3,
        lm_weight: NonNegative = 0.5,
        length_bonus: NonNegative = 0.5,
    ) -> None:
        super().__init__(spec, model)
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        (self.text,) = spec.of_kind("tokens", spec.targets)
        self.sample_rate: int = spec.fitted["sample_rate"]
        self.decoding, self.beam_width, self.lm_weight, self.length_bonus = decoding, beam_width, lm_weight, length_bonus
        if decoding == "beam":
            count = len(spec.fields[self.text].names)
            if (1 + count) ** lm_order > LARGEST:
                raise ConfigError(
                    f"task.lm_order: must be smaller for an alphabet of {count} letters. Received: {lm_order}.", "task.lm_order"
                )
            self.register_buffer("letters", torch.zeros([1 + count] * (lm_order - 1) + [count]))
        size = round(WINDOW * self.sample_rate)
        self.points = 2 ** math.ceil(math.log2(2 * size))
        filters = torch.from_numpy(mel_filters(MELS, self.points, self.sample_rate).T).float()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(size, periodic=False), persistent=False)

    # --- data

    def features(self, batch: Batch) -> Batch:
        """Replace samples (samples,) by logarithms of mel powers (frames, mels), in single precision."""
        audio: Ragged = batch[self.audio]
        hop, size = round(HOP * self.sample_rate), len(self.window)
        frames = -(-audio.lengths // hop)
        offsets = functional.pad(frames.cumsum(0), (1, 0))
        sample = torch.repeat_interleave(torch.arange(len(frames), device=frames.device), frames)
        start = (torch.arange(len(sample), device=frames.device) - offsets[sample]) * hop - size // 2
        place = start[:, None] + torch.arange(size, device=frames.device)
        outside = (place < 0) | (place >= audio.lengths[sample, None])
        place = (place + audio.offsets[sample, None]).clamp_(0, len(audio.values) - 1)
        values = audio.values.float()[place].masked_fill_(outside, 0)
        power = torch.fft.rfft(values * self.window.float(), self.points).abs().square()
        mels = (power @ self.filters.float() / size + FLOOR).log()
        return batch.replace(**{self.audio: Ragged(mels, offsets)})

    def normalize(self, batch: Batch) -> Ragged:
        """Return features with mean 0 and deviation 1 over each utterance; a constant one is 0."""
        features: Ragged = batch[self.audio]
        padded, lengths = features.padded()
        inside = (torch.arange(padded.shape[1], device=lengths.device) < lengths[:, None])[:, :, None]
        count = lengths[:, None, None]
        centered = (padded - padded.sum(1, keepdim=True) / count) * inside
        std = (centered.square().sum(1, keepdim=True) / count).sqrt()
        scaled = centered / std.clamp(min=SMALLEST)
        return features.like(scaled[inside.squeeze(2)].to(self._place.dtype))

    # --- learning

    def prepare(self, train: Split) -> None:
        """Fit the model of letters."""
        if self.decoding == "beam":
            shape = self.letters.shape
            self.letters.copy_(torch.from_numpy(fit_letters([*train[self.text]], shape[-1], len(shape))))

    def counts(self, batch: Batch) -> Totals:
        """Count the letters."""
        return {"letters": len(batch[self.text].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the negative log-likelihood of the transcripts, a sum divided by the step's letters."""
        return self._surprise(batch, *self.log_probabilities(batch)).sum() / totals["letters"]

    def log_probabilities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return those of blank and letters (batch, steps, 1 + letters), and the steps of each sample (batch,)."""
        logits, lengths = self.model(self.normalize(batch))
        return logits.float().log_softmax(2), lengths

    def _surprise(self, batch: Batch, log_probabilities: Tensor, lengths: Tensor) -> Tensor:
        """Return the negative log-likelihood of each transcript (batch,)."""
        text: Ragged = batch[self.text]
        return functional.ctc_loss(
            log_probabilities.transpose(0, 1), text.values + 1, lengths, text.lengths, blank=0, reduction="none"
        )

    # --- scoring

    def score(self, batch: Batch) -> Scores:
        log_probabilities, lengths = self.log_probabilities(batch)
        transcript, confidence = self.decode(log_probabilities, lengths)
        return {
            "target": batch[self.text],
            "transcript": transcript,
            "confidence": confidence,
            "loss": self._surprise(batch, log_probabilities, lengths),
        }

    def decode(self, log_probabilities: Tensor, lengths: Tensor) -> tuple[Ragged, Tensor]:
        """Return the letters, and the geometric mean of the probabilities of the best path's steps (batch,)."""
        best, path = log_probabilities.max(2)
        inside = torch.arange(path.shape[1], device=lengths.device) < lengths[:, None]
        repeated = functional.pad(path[:, 1:] == path[:, :-1], (1, 0))
        emitted = inside & ~repeated & (path > 0)
        confidence = ((best * inside).sum(1) / lengths).exp()
        if self.decoding == "beam":
            return self._best_texts(log_probabilities, lengths), confidence
        return Ragged(path[emitted] - 1, functional.pad(emitted.sum(1).cumsum(0), (1, 0))), confidence

    def _best_texts(self, log_probabilities: Tensor, lengths: Tensor) -> Ragged:
        letters = self.letters.double().cpu().numpy()
        options = {"width": self.beam_width, "letters": letters, "weight": self.lm_weight, "bonus": self.length_bonus}
        samples = zip(log_probabilities.double().cpu().numpy(), lengths.tolist(), strict=True)
        texts = [np.array(beam_search(sample[:steps], **options)[0][0], np.int64) for sample, steps in samples]
        found = Ragged.of(texts)
        return Ragged(*(torch.from_numpy(array).to(lengths.device) for array in (found.values, found.offsets)))

    def texts(self, tokens: Ragged) -> list[str]:
        """Return transcripts as text."""
        letters = np.array(self.spec.fields[self.text].names)
        return ["".join(letters[row.cpu().numpy()]) for row in tokens]

    def errors(self, scores: Scores) -> dict[str, np.ndarray]:
        """Count edits, words and letters of each sample (samples,)."""
        return errors_of(self.texts(scores["target"]), self.texts(scores["transcript"]))

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute error rates and the mean loss of a letter; rates of no words are NaN."""
        errors = self.errors(scores)
        rates = {name: ratio(errors[above], errors[below]) for name, (above, below) in RATES.items()}
        return {**rates, "loss": ratio(scores["loss"].double().numpy(), errors["letters"])}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        """Predict the most frequent training transcript."""
        errors = errors_of(self._texts_of(dataset.test), self._most_frequent(dataset))
        return "most frequent transcript", {name: ratio(errors[above], errors[below]) for name, (above, below) in RATES.items()}

    def baseline_predictions(self, dataset: Dataset) -> dict[str, list]:
        heard = self._most_frequent(dataset)
        errors = errors_of(self._texts_of(dataset.test), heard)
        return {"prediction": heard, **{name: values.tolist() for name, values in errors.items()}}

    def _most_frequent(self, dataset: Dataset) -> list[str]:
        """Return the most frequent training transcript, for each test sample."""
        counts = Counter(self._texts_of(dataset.train))
        return [min(counts, key=lambda text: (-counts[text], text))] * len(dataset.test)

    def _texts_of(self, split: Split) -> list[str]:
        text = split[self.text]
        return self.texts(Ragged(torch.from_numpy(np.ascontiguousarray(text.values)), torch.from_numpy(text.offsets)))

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return texts, confidence as score, and the edits and words of each utterance."""
        return {
            "target": self.texts(scores["target"]),
            "prediction": self.texts(scores["transcript"]),
            "score": scores["confidence"].tolist(),
            **{name: values.tolist() for name, values in self.errors(scores).items()},
        }

    def forms(self) -> dict[str, dict[str, Any]]:
        return {name: {"form": "ratio", "column": above, "by": below} for name, (above, below) in RATES.items()}

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot spectrograms with what was heard, the worst utterances, and error rates by speaker and length."""
        from dlframe import plots

        errors = self.errors(scores)
        said, heard = ([words(text) for text in self.texts(scores[name])] for name in ("target", "transcript"))
        pairs = [aligned(*pair) for pair in zip(said, heard, strict=True)]
        names = [str(name) for name in dataset.test.ids]
        if dataset.test.groups is not None:
            names = [f"{name} ({speaker})" for name, speaker in zip(names, dataset.test.groups, strict=True)]
        order = np.lexsort((np.arange(len(names)), -errors["word_errors"] / np.maximum(errors["words"], 1)))
        by = {"words in the utterance": errors["words"]}
        if dataset.test.groups is not None:
            by = {"speaker": dataset.test.groups, **by}
        shown = np.unique(np.r_[order[-2:], order[:1]])
        worst = [(names[i], pairs[i], int(errors["word_errors"][i]), int(errors["words"][i])) for i in order[:15]]
        return {
            "spectrograms": plots.spectrograms(
                [self._heard(dataset.test, i, names[i], pairs[i]) for i in shown], hop=HOP, title=f"{self.spec.name}, test"
            ),
            "worst_utterances": plots.worst_utterances(worst, title=f"{self.spec.name}: worst utterances of the test"),
            "error_rates": plots.error_rates(errors["word_errors"], errors["words"], by, title=self.spec.name),
        }

    @torch.no_grad()
    def _heard(self, split: Split, sample: int, name: str, pairs: list[tuple[str, str]]) -> Any:
        from dlframe import plots

        columns: dict[str, Any] = {}
        for column in (self.audio, self.text):
            taken = split[column].take(np.array([sample]))
            columns[column] = Ragged(*(torch.from_numpy(array).to(self.device) for array in (taken.values, taken.offsets)))
        batch = self.features(Batch(columns, torch.tensor([sample]), self.spec))
        path = self.log_probabilities(batch)[0][0].argmax(1).tolist()
        letters = self.spec.fields[self.text].names
        heard = [
            (step * STRIDE * HOP, letters[symbol - 1])
            for step, symbol in enumerate(path)
            if symbol and (not step or path[step - 1] != symbol)
        ]
        return plots.Heard(batch[self.audio].values.cpu().numpy(), heard, pairs, name)

    # --- use

    def outputs(self) -> dict[str, Field]:
        letters = self.spec.fields[self.text].names
        return {
            "prediction": Field(kind="tokens", dtype="int64", shape=(None,), names=letters),
            "confidence": Field(kind="value", dtype="float32"),
        }

    def encode(self, file: Path) -> dict[str, np.ndarray]:
        """Return the samples of an audio file, at the sample rate of the training, and say what was changed."""
        recording = read_audio(file, self.sample_rate)
        say(*(f"{file.name}: {note}" for note in recording.notes), error=True)
        return {self.audio: recording.samples}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Return transcripts, and the geometric mean of the probabilities of their steps."""
        transcript, confidence = self.decode(*self.log_probabilities(batch))
        return {"prediction": transcript, "confidence": confidence}


def ratio(above: np.ndarray, below: np.ndarray) -> float:
    """Return the quotient of sums; NaN where there is nothing to divide by."""
    return float(above.sum() / below.sum()) if below.sum() else math.nan


def errors_of(said: list[str], heard: list[str]) -> dict[str, np.ndarray]:
    """Count edits, words and letters of each pair of transcripts (samples,)."""
    of_words = edits([words(text) for text in said], [words(text) for text in heard])
    letters = [characters(text) for text in said]
    of_letters = edits(letters, [characters(text) for text in heard])
    insertions, deletions, substitutions = of_words.T
    return {
        "word_errors": of_words.sum(1),
        "words": np.array([len(words(text)) for text in said]),
        "letter_errors": of_letters.sum(1),
        "letters": np.array([*map(len, letters)]),
        "insertions": insertions,
        "deletions": deletions,
        "substitutions": substitutions,
    }
