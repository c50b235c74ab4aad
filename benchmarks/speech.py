"""Speech recognition beside a hand-written torch script, and the real-time factor of decoding.

    OMP_NUM_THREADS=1 python benchmarks/speech.py twin [epochs=12] [utterances=2400]
    OMP_NUM_THREADS=1 python benchmarks/speech.py decoding [RUN]
    OMP_NUM_THREADS=1 python benchmarks/speech.py joined RUN [minutes=10]
    OMP_NUM_THREADS=1 python benchmarks/speech.py untrained [pad_seconds=30]

"twin": CTC on spoken_digits by a loop and features of its own, the same network, batches of the same size,
Adam with weight decay, the schedule and the augmentation; beside `task=speech_recognition`. Word error rates of the test with
95 % intervals over voices, and that of the difference, over voices too.
"decoding": seconds of features, network and decoding for a second of audio; greedy and by beam search, and the search alone
beside a loop over texts and letters, which must find the same.
"joined": the test recordings of a run as one long recording, read in windows; its word error rate beside that of the
recordings one by one.
"untrained": Whisper tiny.en on the test recordings of asterisk_en, as published.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dlframe.config import load
from dlframe.jobs.data import load_data
from dlframe.jobs.train import run
from dlframe.readers.audio.mel import MELS, mel_filters
from dlframe.registry import augmentations, models, tasks
from dlframe.serving.model import Model
from dlframe.statistics.intervals import bootstrap
from dlframe.statistics.transcripts.beam import beam_search
from dlframe.statistics.transcripts.edits import edits, words
from dlframe.types import Batch, Dataset, Estimate, Ragged, Split

RATE = 8000


def told(name: str, errors: np.ndarray, count: np.ndarray, groups: np.ndarray | None) -> None:
    """Print a word error rate with its interval."""
    estimate = Estimate.of(errors.sum() / count.sum(), bootstrap(lambda e, n: e.sum() / n.sum(), errors, count, groups=groups))
    print(f"{name:<28}WER {100 * estimate.value:.2f} % ({100 * estimate.low:.2f} to {100 * estimate.high:.2f})")


def whole(split: Split, dataset: Dataset) -> Batch:
    """Return all samples as one batch."""
    columns: dict[str, Any] = {
        name: Ragged(torch.from_numpy(np.ascontiguousarray(split[name].values)), torch.from_numpy(split[name].offsets))
        for name in ("audio", "text")
    }
    return Batch(columns, torch.arange(len(split)), dataset.spec)


# --- twin


class Script:
    """What one writes by hand: features, padding, loss, schedule and decoding."""

    def __init__(self, dataset: Dataset, epochs: int) -> None:
        self.dataset, self.epochs = dataset, epochs
        torch.manual_seed(0)
        self.network: Any = models.build({"name": "quartznet"}, spec=dataset.spec)
        self.filters = torch.from_numpy(mel_filters(MELS, 512, RATE)).float()
        self.window = torch.hann_window(200, periodic=False)
        self.augmentations = [augmentations.build({"name": n}, spec=dataset.spec) for n in ("spec_augment", "vocal_tract")]

    def train(self) -> None:
        split, random = self.dataset.train, np.random.default_rng(0)
        sounds = [self.features(sound) for sound in split["audio"]]
        texts = [torch.from_numpy(np.ascontiguousarray(text)) for text in split["text"]]
        steps = self.epochs * math.ceil(len(sounds) / 32)
        optimizer = torch.optim.AdamW(self.network.parameters(), 3e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.epochs):
            order = random.permutation(len(sounds))
            for start in range(0, len(order), 32):
                chosen = order[start : start + 32]
                columns: dict[str, Any] = {
                    "audio": joined([sounds[i] for i in chosen]),
                    "text": joined([texts[i] for i in chosen]),
                }
                batch = Batch(columns, torch.from_numpy(chosen), self.dataset.spec)
                for augment in self.augmentations:
                    batch = augment(batch, generator)
                logits, lengths = self.network(normalized(batch["audio"]))
                text = batch["text"]
                loss = functional.ctc_loss(
                    logits.log_softmax(2).transpose(0, 1), text.values + 1, lengths, text.lengths, reduction="sum"
                )
                optimizer.zero_grad()
                (loss / len(text.values)).backward()
                optimizer.step()
                schedule.step()

    def features(self, sound: np.ndarray) -> torch.Tensor:
        """Return log-mel features (frames, mels) of a recording."""
        hops = -(-len(sound) // 80)
        padded = functional.pad(torch.from_numpy(np.ascontiguousarray(sound)), (100, 80 * hops + 200))
        frames = padded.unfold(0, 200, 80)[:hops] * self.window
        return (torch.fft.rfft(frames, 512).abs().square() @ self.filters.T / 200 + 1e-8).log()

    @torch.no_grad()
    def transcribe(self, split: Split) -> list[str]:
        self.network.eval()
        names, found = self.dataset.spec.target.names, []
        for sound in split["audio"]:
            logits, _ = self.network(normalized(joined([self.features(sound)])))
            path = torch.unique_consecutive(logits[0].argmax(1))
            found.append("".join(names[i - 1] for i in path.tolist() if i))
        return found


def joined(samples: list[torch.Tensor]) -> Ragged:
    return Ragged(torch.cat(samples), torch.tensor([0, *map(len, samples)]).cumsum(0))


def normalized(features: Ragged) -> Ragged:
    rows = [(row - row.mean(0)) / row.std(0, correction=0).clamp(min=1e-2) for row in features]
    return joined(rows)


def twin(given: dict[str, str]) -> None:
    epochs, utterances = int(given.get("epochs", 12)), given.get("utterances", "2400")
    with tempfile.TemporaryDirectory() as folder:
        overrides = ["task=speech_recognition", f"data.utterances={utterances}", f"epochs={epochs}", "tracking=none"]
        config = load([*overrides, f"runs={folder}", "figures=none"])
        start = time.process_time()
        result = run(config)
        own = time.process_time() - start
        dataset = load_data(config)
        assert result.folder
        ours = [str(text) for text in Model(result.folder).predict([*dataset.test["audio"]])["prediction"]]
    start = time.process_time()
    script = Script(dataset, epochs)
    script.train()
    theirs = script.transcribe(dataset.test)
    print(
        f"{epochs} epochs of {len(dataset.train):,} utterances; {own:.0f} s of CPU, script {time.process_time() - start:.0f} s"
    )
    names = np.array(dataset.spec.target.names)
    said = [words("".join(names[row])) for row in dataset.test["text"]]
    count = np.array([*map(len, said)])
    errors = [edits(said, [words(text) for text in texts]).sum(1) for texts in (ours, theirs)]
    for name, each in zip(("dlframe", "script"), errors, strict=True):
        told(name, each, count, dataset.test.groups)
    samples = bootstrap(lambda e, n: e.sum() / n.sum(), errors[0] - errors[1], count, groups=dataset.test.groups)
    estimate = Estimate.of((errors[0] - errors[1]).sum() / count.sum(), samples)
    points = [100 * value for value in (estimate.value, estimate.low, estimate.high)]
    print(f"dlframe - script: {points[0]:+.2f} points ({points[1]:+.2f} to {points[2]:+.2f})")


# --- decoding


def searched(steps: np.ndarray, *, width: int, letters: np.ndarray, weight: float, bonus: float) -> tuple[int, ...]:
    """Return the best text of a prefix beam search, as one writes it from the paper."""
    count, before = steps.shape[1] - 1, letters.ndim - 1
    beams: dict[tuple[int, ...], tuple[float, float, float]] = {(): (0.0, -math.inf, 0.0)}

    def total(item: tuple[tuple[int, ...], Any]) -> tuple[float, tuple[int, ...]]:
        text, (blank, letter, added) = item
        return -(float(np.logaddexp(blank, letter)) + added), text

    for step in steps.tolist():
        found: dict[tuple[int, ...], list[float]] = {}
        for text, (blank, letter, added) in beams.items():
            either = float(np.logaddexp(blank, letter))
            own = found.setdefault(text, [-math.inf, -math.inf, added])
            own[0] = float(np.logaddexp(own[0], either + step[0]))
            if text:
                own[1] = float(np.logaddexp(own[1], letter + step[1 + text[-1]]))
            row = letters[(*[count] * (before - len(text)), *text[max(0, len(text) - before) :])]
            for symbol in range(count):
                came = (blank if text and text[-1] == symbol else either) + step[1 + symbol]
                extra = added + weight * float(row[symbol]) + bonus
                new = found.setdefault((*text, symbol), [-math.inf, -math.inf, extra])
                new[1] = float(np.logaddexp(new[1], came))
        beams = {text: (a, b, c) for text, (a, b, c) in sorted(found.items(), key=total)[:width]}
    return min(beams.items(), key=total)[0]


def beside_a_loop(steps: list[np.ndarray], letters: np.ndarray, seconds: float) -> None:
    """Print CPU seconds of the beam search alone for a second of audio, and of the loop, on the same outputs."""
    for width in (4, 8, 32):
        options: dict[str, Any] = {"width": width, "letters": letters, "weight": 0.5, "bonus": 0.5}
        start = time.process_time()
        own = [beam_search(row, **options)[0][0] for row in steps]
        middle = time.process_time()
        loop = [searched(row, **options) for row in steps]
        times = (middle - start) / seconds, (time.process_time() - middle) / seconds
        same = sum(a == b for a, b in zip(own, loop, strict=True))
        print(
            f"search {width:<5} alone {times[0]:.4f}, loop {times[1]:.4f}, ratio {times[1] / times[0]:.2f}; "
            f"{same} of {len(own)} texts are the same"
        )


def decoding(given: dict[str, str]) -> None:
    """Print seconds of CPU for a second of audio."""
    overrides = ["task=speech_recognition", *([] if "RUN" in given else ["data=tones"])]
    model = Model(Path(given["RUN"])) if "RUN" in given else None
    config = model.config if model else load(overrides)
    dataset = load_data(config)
    split = dataset.test.take(np.arange(min(200, len(dataset.test))))
    rate = dataset.spec.fitted["sample_rate"]
    seconds = len(split["audio"].values) / rate
    network = model.task.model if model else models.build(config.values["model"], spec=dataset.spec)
    options = [{"decoding": "greedy"}, *({"decoding": "beam", "beam_width": width} for width in (4, 8, 32))]
    print(f"{len(split)} utterances of {dataset.spec.name}, {seconds:.0f} s; CPU seconds for a second of audio")
    for option in options if not hasattr(network, "transcribe") else options[:1]:
        task: Any = tasks.build({"name": "transcription", **option}, spec=dataset.spec, model=network).eval()
        task.prepare(dataset.train)
        batch = whole(split, dataset)
        with torch.no_grad():
            times = []
            for _ in range(3):
                start = time.process_time()
                features = task.features(batch)
                middle = time.process_time()
                scores = task.score(features)
                times.append((middle - start, time.process_time() - middle))
        made, rest = np.median(times, 0) / seconds
        wer = task.metrics(scores)["wer"]
        name = " ".join(map(str, option.values()))
        print(f"{name:<12} features {made:.4f}, network and decoding {rest:.4f}, WER {100 * wer:.2f} %")
        if option["decoding"] == "beam" and option["beam_width"] == 32:
            few = split.take(np.arange(min(20, len(split))))
            with torch.no_grad():
                outputs, lengths = task.log_probabilities(task.features(whole(few, dataset)))
            steps = [row[:n].double().numpy() for row, n in zip(outputs, lengths.tolist(), strict=True)]
            beside_a_loop(steps, task.letters.double().numpy(), len(few["audio"].values) / rate)


def long(given: dict[str, str]) -> None:
    """Print word error rates of recordings one by one, and as one of so many minutes."""
    model = Model(Path(given["RUN"]))
    dataset = load_data(model.config)
    rate, names = dataset.spec.fitted["sample_rate"], np.array(dataset.spec.target.names)
    most, sounds, said = 60 * float(given.get("minutes", 10)) * rate, [], []
    for i in np.random.default_rng(0).permutation(len(dataset.test)):
        if sum(map(len, sounds)) < most:
            sounds.append(np.asarray(dataset.test["audio"][i]))
            said.append(words("".join(names[dataset.test["text"][i]])))
    each = [words(str(text)) for text in model.predict(sounds)["prediction"]]
    every = [word for text in said for word in text]
    heard = words(str(model.predict([np.concatenate(sounds)])["prediction"][0]))
    minutes = sum(map(len, sounds)) / rate / 60
    apart, together = edits(said, each).sum(0), edits([every], [heard]).sum(0)
    print(f"{len(sounds)} recordings, {minutes:.1f} minutes, {len(every):,} words")
    for name, (insertions, deletions, substitutions) in (("one by one", apart), ("as one", together)):
        rate_ = 100 * (insertions + deletions + substitutions) / len(every)
        print(f"{name:<12}WER {rate_:.2f} %: {insertions} inserted, {deletions} missed, {substitutions} substituted")


def untrained(given: dict[str, str]) -> None:
    """Print the word error rate of the published weights."""
    config = load(["experiment=asterisk_whisper", f"model.pad_seconds={given.get('pad_seconds', 30)}", "tracking=none"])
    dataset = load_data(config)
    task: Any = config.build("task", spec=dataset.spec, model=config.build_model(dataset.spec)).eval()
    errors, count = [], []
    for i in range(len(dataset.test)):
        one = dataset.test.take(np.array([i]))
        with torch.no_grad():
            found = task.errors(task.score(task.features(whole(one, dataset))))
        errors.append(int(found["word_errors"][0]))
        count.append(int(found["words"][0]))
    told("tiny.en, not trained", np.array(errors), np.array(count), None)


def main() -> None:
    what, *rest = sys.argv[1:] or ["twin"]
    given = {key if equals else "RUN": value if equals else key for key, equals, value in (a.partition("=") for a in rest)}
    torch.set_num_threads(1)
    {"twin": twin, "decoding": decoding, "joined": long, "untrained": untrained}[what](given)


if __name__ == "__main__":
    main()
