"""Transcription of speech."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.audio.files import read_audio, read_stretches
from dlframe.readers.audio.mel import HOP, STRIDE, Filterbank, standard_filterbank
from dlframe.readers.audio.stretches import cuts, spoken
from dlframe.readers.audio.transcripts import normalized
from dlframe.registry import Count, NonNegative, tasks
from dlframe.statistics.transcripts.alignment import best_path, word_spans
from dlframe.statistics.transcripts.beam import beam_search, fit_letters
from dlframe.statistics.transcripts.edits import aligned, characters, edits, words
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.types import Batch, ConfigError, Dataset, DataSpec, Field, Ragged, Split, say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNKNOWN = "\ufffd"
"""Letter that stands for those outside the alphabet, which a decoder of its own may write."""

AT_ONCE = 2**15
"""Frames that are transformed at once."""

OVERLAP = 4.0
"""Seconds that two windows of long audio share."""

STREAMED = 10.0
"""Seconds of a stretch of standard input at most."""

WINDOWS = 8
"""Windows of long audio that a model sees at once."""

LARGEST = 2**23
"""Entries of a model of letters."""

BEYOND = 1.5
"""Length of audio that is cut in its pauses, relative to the longest training recording."""

SILENT = -20.0
"""Logarithm of the probability of a letter in a pause."""

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


@dataclass(frozen=True)
class Decoded:
    """Texts of CTC outputs.

    Attributes:
        text: Letters of each sample.
        path: (batch, steps) symbol of each step: 0 for the blank, 1 + the letter otherwise.
        best: (batch, steps) logarithm of its probability.
        confidence: (batch,) geometric mean of the probabilities within each sample.
    """

    text: Ragged
    path: Tensor
    best: Tensor
    confidence: Tensor


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
    scoring=("decoding", "beam_width", "lm_order", "lm_weight", "length_bonus", "window_seconds"),
    sample={"name": "tones", "utterances": 60},
)
class Transcription(Task):
    """Transcription of speech, trained by connectionist temporal classification (CTC).

    Graves et al. 2006. Features are logarithms of the power in mel filters, every 10 ms, each normalized over its utterance.
    The model returns the letters' logits of each step of 20 ms, and first that of the blank. The letters of a transcript are
    those of the most probable path: equal neighbors merged, then blanks removed.

    With decoding=beam, the letters are those of the best text of a beam search over paths, with a model of the letters of the
    training transcripts.

    Outside training, audio half as long again as the longest training recording, or longer than `window_seconds`, is cut in
    its pauses of 0.25 s or more, see `spoken`: each part is normalized and read alone, without the silence, and a space stands
    between two. A part longer than `window_seconds` is read in windows that overlap by 4 s. At the step of an overlap where the
    blank is surest in both windows, and around it, the outputs of one follow those of the other: no word is there twice. A
    beam search goes over stretches of so many seconds, cut likewise.

    A model that has the method `transcribe`, such as whisper, has a loss and a decoding of its own, to which these options
    do not apply. Its texts are normalized as the transcripts of the data; letters outside their alphabet become a sign that
    counts as an error.

    Error rates are the edits of all utterances divided by the words, or letters, of all targets. They can exceed 1. Spaces
    are letters.

    Args:
        decoding: Search for the text: the most probable path (greedy), or the most probable text (beam).
        beam_width: Texts that a beam search keeps at each step.
        lm_order: Letters that the model of letters looks at, the predicted one included.
        lm_weight: Weight of its logarithm in the score of a text; 0 for none.
        length_bonus: Addition to the score for each letter, against the preference of both models for short texts.
        window_seconds: Length of the windows of longer audio; at least 10 s.
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
        window_seconds: Annotated[float, Interval(ge=10)] = 20.0,
    ) -> None:
        super().__init__(spec, model)
        (self.audio,) = spec.of_kind("audio", spec.inputs)
        (self.text,) = spec.of_kind("tokens", spec.targets)
        self.sample_rate: int = spec.fitted["sample_rate"]
        self.decoding, self.beam_width, self.lm_weight, self.length_bonus = decoding, beam_width, lm_weight, length_bonus
        self.window_steps = round(window_seconds / HOP / STRIDE)
        usual = BEYOND * spec.fitted.get("longest_seconds", window_seconds)
        self.longest = math.ceil(min(window_seconds, usual) / HOP)
        self.decodes: Any = model if hasattr(model, "transcribe") else None
        """The model, if it decodes by itself."""
        self.alphabet = (*spec.fields[self.text].names, *((UNKNOWN,) if self.decodes else ()))
        self.rules: dict[str, Any] = spec.fitted.get("text", {})
        if decoding == "beam" and self.decodes:
            raise ConfigError(
                "task.decoding: must be greedy for a model that decodes by itself. Received: beam.", "task.decoding"
            )
        if decoding == "beam":
            count = len(spec.fields[self.text].names)
            if (1 + count) ** lm_order > LARGEST:
                raise ConfigError(
                    f"task.lm_order: must be smaller for an alphabet of {count} letters. Received: {lm_order}.", "task.lm_order"
                )
            self.register_buffer("letters", torch.zeros([1 + count] * (lm_order - 1) + [count]))
        self.bank: Filterbank = getattr(model, "filterbank", standard_filterbank)(self.sample_rate)
        self.register_buffer("filters", torch.from_numpy(self.bank.weights).float(), persistent=False)
        self.register_buffer("window", torch.from_numpy(self.bank.window).float(), persistent=False)

    @property
    def space(self) -> int:
        """Symbol of the space; -1 if the alphabet has none."""
        return 1 + self.alphabet.index(" ") if " " in self.alphabet else -1

    # --- data

    def features(self, batch: Batch) -> Batch:
        """Replace samples (samples,) by logarithms of mel powers (frames, mels), in single precision."""
        audio: Ragged = batch[self.audio]
        hop, size = self.bank.hop, len(self.window)
        frames = -(-(audio.lengths + (size // 2 if self.bank.mirrored else 0)) // hop)
        offsets = functional.pad(frames.cumsum(0), (1, 0))
        sample = torch.repeat_interleave(torch.arange(len(frames), device=frames.device), frames)
        start = (torch.arange(len(sample), device=frames.device) - offsets[sample]) * hop - size // 2
        found = [self._mels(audio, *part) for part in zip(start.split(AT_ONCE), sample.split(AT_ONCE), strict=True)]
        return batch.replace(**{self.audio: Ragged(torch.cat(found) if len(found) > 1 else found[0], offsets)})

    def _mels(self, audio: Ragged, start: Tensor, sample: Tensor) -> Tensor:
        """Return the features (frames, mels) of frames that begin at `start` in their sample."""
        place = start[:, None] + torch.arange(len(self.window), device=start.device)
        if self.bank.mirrored:
            place = place.abs()
        outside = (place < 0) | (place >= audio.lengths[sample, None])
        place = (place + audio.offsets[sample, None]).clamp_(0, len(audio.values) - 1)
        values = audio.values.float()[place].masked_fill_(outside, 0)
        power = torch.fft.rfft(values * self.window.float(), self.bank.points).abs().square()
        return (power @ self.filters.float() + self.bank.noise).clamp(min=self.bank.least).log()

    def normalize(self, batch: Batch) -> Ragged:
        """Return features with mean 0 and deviation 1 over each utterance; a constant one is 0."""
        return self._normalized_over_time(batch[self.audio])

    def _normalized_over_time(self, features: Ragged) -> Ragged:
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
        if hasattr(self.decodes, "check_vocabulary"):
            self.decodes.check_vocabulary()
        if self.decoding == "beam":
            shape = self.letters.shape
            self.letters.copy_(torch.from_numpy(fit_letters([*train[self.text]], shape[-1], len(shape))))

    def refitted(self, tensors: Mapping[str, Tensor], train: Split | None) -> dict[str, Tensor]:
        """Return the tensors with the model of letters that the decoding needs, and without another one."""
        kept = {name: tensor for name, tensor in tensors.items() if name != "letters"}
        if self.decoding != "beam":
            return kept
        if (known := tensors.get("letters")) is not None and known.shape == self.letters.shape:
            return {**tensors}
        if train is None:
            raise ConfigError(
                f"task.decoding: with lm_order={self.letters.ndim}, beam needs a model of letters, which the run has not "
                "fitted to its training transcripts. Score the run's own data",
                "task.decoding",
            )
        self.prepare(train)
        return {**kept, "letters": self.letters.cpu()}

    def counts(self, batch: Batch) -> Totals:
        """Count the letters."""
        return {"letters": len(batch[self.text].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the negative log-likelihood of the transcripts, a sum divided by the step's letters."""
        if self.decodes:
            return self.model(batch[self.audio], self.texts(batch[self.text])).sum() / totals["letters"]
        return self._surprise(batch, *self.log_probabilities(batch)).sum() / totals["letters"]

    def log_probabilities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return those of blank and letters (batch, steps, 1 + letters), and the steps of each sample (batch,)."""
        features: Ragged = batch[self.audio]
        if not self.training and int(features.lengths.max()) > self.longest:
            return self._in_parts(features)
        logits, lengths = self.model(self.normalize(batch))
        return logits.float().log_softmax(2), lengths

    def _in_parts(self, features: Ragged) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of long audio, see the class."""
        size, shared = self.window_steps * STRIDE, round(OVERLAP / HOP)
        parts = [self._parts(frames) for frames in features]
        starts = [[range(start, max(start + 1, end - shared), size - shared) for start, end in own] for own in parts]
        windows = [
            frames[start : min(start + size, end)]
            for frames, own, places in zip(features, parts, starts, strict=True)
            for (_, end), some in zip(own, places, strict=True)
            for start in some
        ]
        found: list[Tensor] = []
        for first in range(0, len(windows), WINDOWS):
            some = windows[first : first + WINDOWS]
            offsets = torch.tensor([0, *map(len, some)], device=features.offsets.device).cumsum(0)
            logits, lengths = self.model(self._normalized_over_time(Ragged(torch.cat(some), offsets)))
            found += [row[:steps] for row, steps in zip(logits.float().log_softmax(2), lengths.tolist(), strict=True)]
        joined, outputs = [], iter(found)
        for frames, own in zip(features, starts, strict=True):
            read = [joined_windows([next(outputs) for _ in some], (size - shared) // STRIDE) for some in own]
            joined.append(self._with_pauses(read, [some.start // STRIDE for some in own], -(-len(frames) // STRIDE)))
        lengths = torch.tensor([*map(len, joined)], device=features.offsets.device)
        return nn.utils.rnn.pad_sequence(joined, batch_first=True), lengths

    def _parts(self, frames: Tensor) -> list[tuple[int, int]]:
        """Return the start and the end of what lies between the pauses, from whole steps on; all of shorter audio."""
        if len(frames) <= self.longest:
            return [(0, len(frames))]
        return [(start // STRIDE * STRIDE, end) for start, end in spoken(frames.logsumexp(1).cpu().numpy())]

    def _with_pauses(self, parts: list[Tensor], starts: list[int], steps: int) -> Tensor:
        """Return outputs (steps, symbols) of parts that begin at `starts`: blanks in the pauses, and a space between words."""
        found = parts[0].new_full((steps, parts[0].shape[1]), SILENT)
        found[:, 0] = 0
        last, before = self.space, 0
        for start, part in zip(starts, parts, strict=True):
            said = part.argmax(1)
            said = said[said > 0].tolist()
            if said and self.space not in (-1, last, said[0]):
                found[(before + start) // 2, [0, self.space]] = found.new_tensor([SILENT, 0.0])
            found[start : start + len(part)] = part
            last, before = said[-1] if said else last, start + len(part)
        return found.log_softmax(1)

    def _surprise(self, batch: Batch, log_probabilities: Tensor, lengths: Tensor) -> Tensor:
        """Return the negative log-likelihood of each transcript (batch,)."""
        text: Ragged = batch[self.text]
        return functional.ctc_loss(
            log_probabilities.transpose(0, 1), text.values + 1, lengths, text.lengths, blank=0, reduction="none"
        )

    # --- scoring

    def score(self, batch: Batch) -> Scores:
        if self.decodes:
            written = self.decodes.transcribe(batch[self.audio], self.texts(batch[self.text]))
            return {
                "target": batch[self.text],
                "transcript": self._as_letters(written.texts),
                "confidence": written.confidence,
                "loss": written.surprise,
            }
        log_probabilities, lengths = self.log_probabilities(batch)
        decoded = self.decode(log_probabilities, lengths)
        return {
            "target": batch[self.text],
            "transcript": decoded.text,
            "confidence": decoded.confidence,
            "loss": self._surprise(batch, log_probabilities, lengths),
        }

    def _as_letters(self, texts: Sequence[str]) -> Ragged:
        """Return texts, normalized as the transcripts of the data, as letters."""
        places = {letter: i for i, letter in enumerate(self.alphabet)}
        rows = [[places.get(letter, places[UNKNOWN]) for letter in normalized(text, **self.rules)] for text in texts]
        found = Ragged.of([np.array(row, np.int64) for row in rows])
        return Ragged(*(torch.from_numpy(array).to(self.device) for array in (found.values, found.offsets)))

    def decode(self, log_probabilities: Tensor, lengths: Tensor) -> Decoded:
        """Return the letters of each sample, the path that they come from, and its confidence."""
        best, path = log_probabilities.max(2)
        if self.decoding == "beam":
            path = self._best_paths(log_probabilities, lengths)
            best = log_probabilities.gather(2, path[:, :, None])[:, :, 0]
        inside = torch.arange(path.shape[1], device=lengths.device) < lengths[:, None]
        repeated = functional.pad(path[:, 1:] == path[:, :-1], (1, 0))
        emitted = inside & ~repeated & (path > 0)
        text = Ragged(path[emitted] - 1, functional.pad(emitted.sum(1).cumsum(0), (1, 0)))
        return Decoded(text, path, best, ((best * inside).sum(1) / lengths).exp())

    def _best_paths(self, log_probabilities: Tensor, lengths: Tensor) -> Tensor:
        """Return the most probable path of the best text of each sample (batch, steps)."""
        letters = self.letters.double().cpu().numpy()
        options = {"width": self.beam_width, "letters": letters, "weight": self.lm_weight, "bonus": self.length_bonus}
        paths = torch.zeros(log_probabilities.shape[:2], dtype=torch.int64)
        for row, (sample, steps) in enumerate(zip(log_probabilities.double().cpu().numpy(), lengths.tolist(), strict=True)):
            ends = [*cuts(sample[:steps, 0], self.window_steps), steps]
            for start, end in zip([0, *ends], ends, strict=False):
                stretch = sample[start:end]
                path = best_path(stretch, beam_search(stretch, **options)[0][0])
                paths[row, start:end] = torch.from_numpy(path)
        return paths.to(lengths.device)

    def texts(self, tokens: Ragged) -> list[str]:
        """Return transcripts as text."""
        letters = np.array(self.alphabet)
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
        heard: list[tuple[float, str]] = []
        if not self.decodes:
            path = self.decode(*self.log_probabilities(batch)).path[0].tolist()
            heard = [
                (step * STRIDE * HOP, self.alphabet[symbol - 1])
                for step, symbol in enumerate(path)
                if symbol and (not step or path[step - 1] != symbol)
            ]
        return plots.Heard(batch[self.audio].values.cpu().numpy(), heard, pairs, name)

    # --- use

    def outputs(self) -> dict[str, Field]:
        text = {
            "prediction": Field(kind="tokens", dtype="int64", shape=(None,), names=self.alphabet),
            "confidence": Field(kind="value", dtype="float32"),
        }
        words = {name: Field(kind="value", dtype="float32", shape=(None,)) for name in ("start", "end", "word_confidence")}
        return text if self.decodes else text | words

    def encode(self, file: Path) -> dict[str, np.ndarray]:
        """Return the samples of an audio file, at the sample rate of the training, and say what was changed."""
        recording = read_audio(file, self.sample_rate)
        say(*(f"{file.name}: {note}" for note in recording.notes), error=True)
        return {self.audio: recording.samples}

    def stream(self, source: BinaryIO) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Yield stretches of a WAV file as they come, cut in its pauses, see `read_stretches`."""
        for times, samples in read_stretches(source, self.sample_rate, STREAMED):
            yield f"- {times}", {self.audio: samples}

    def predict(self, batch: Batch) -> dict[str, Any]:
        """Return transcripts, and the geometric mean of the probabilities of their steps; the same for each word, with times.

        A word begins in seconds with the first step of its first letter, and ends with the last step of its last letter: CTC
        may say a letter in a single step of 20 ms, anywhere in its sound or shortly behind it.
        """
        if self.decodes:
            written = self.decodes.transcribe(batch[self.audio])
            return {"prediction": self._as_letters(written.texts), "confidence": written.confidence}
        log_probabilities, lengths = self.log_probabilities(batch)
        decoded = self.decode(log_probabilities, lengths)
        found: list[np.ndarray] = []
        for path, best, steps in zip(decoded.path.cpu().numpy(), decoded.best.cpu().numpy(), lengths.tolist(), strict=True):
            spans = word_spans(path[:steps], self.space)
            confidence = [float(np.exp(best[first : last + 1].mean())) for first, last in spans]
            times = np.array([(first, last + 1) for first, last in spans]).reshape(-1, 2) * STRIDE * HOP
            found.append(np.c_[times, confidence].astype(np.float32))
        words = Ragged.of(found)
        offsets = torch.from_numpy(words.offsets).to(lengths.device)
        columns = torch.from_numpy(words.values).to(lengths.device).unbind(1)
        return {
            "prediction": decoded.text,
            "confidence": decoded.confidence,
            **{
                name: Ragged(column.contiguous(), offsets)
                for name, column in zip(("start", "end", "word_confidence"), columns, strict=True)
            },
        }


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


def joined_windows(windows: list[Tensor], distance: int) -> Tensor:
    """Return the outputs (steps, symbols) of windows that begin `distance` steps after one another, each step once.

    From one to the next at the step of their overlap where the blank, which is first, is surest in both, a step at its ends
    is not chosen: there, a window lacks what is beside it.
    """
    parts, begin = [], 0
    for one, other in pairwise(windows):
        shared = len(one) - distance
        margin = shared // 4
        sure = one[distance : distance + shared, 0] + other[:shared, 0]
        around = min(10, margin)
        worst = -functional.max_pool1d(-sure[None, None], 2 * around + 1, 1, around)[0, 0]
        cut = margin + int(worst[margin : shared - margin].argmax())
        parts.append(one[begin : distance + cut])
        begin = cut
    return torch.cat([*parts, windows[-1][begin:]])
