"""Recordings and transcripts of the user's own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.audio.files import read_audio
from dlframe.readers.audio.manifests import SUFFIXES, LeftOut, Row, read_librispeech, read_list
from dlframe.readers.audio.mel import HOP, needed_seconds
from dlframe.readers.audio.transcripts import (
    Utterance,
    alphabet_of,
    normalized,
    read_alphabet,
    speech_set,
    speech_split,
    stored,
    utterances_of,
)
from dlframe.readers.splits import by_hash, part_to_score
from dlframe.registry import Count, NonNegative, data
from dlframe.storage.decoded import cache_key, decoded
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, say

VERSION = 3
"""Of what is decoded: another one decodes it again."""

NAMED = {"train": "train", "dev": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""Beginning of the name of a list or folder -> its split."""


@data.register(
    "speech_manifest", inputs=("audio",), targets=("tokens",), files=("path", "validation", "test", "alphabet", "audio")
)
def speech_manifest(
    *,
    path: str,
    validation: str | None = None,
    test: str | None = None,
    audio: str | None = None,
    sample_rate: Count = 16000,
    alphabet: str | None = None,
    lower: bool = True,
    punctuation: bool = False,
    language: Literal["", "tr"] = "",
    min_seconds: NonNegative = 0.0,
    max_seconds: NonNegative = 0.0,
    on_error: Literal["raise", "skip"] = "raise",
    shared_speakers: Literal["raise", "allow"] = "raise",
    spec: DataSpec | None = None,
) -> Dataset:
    """Recordings with transcripts: JSON lines, folders of LibriSpeech, or tables of Common Voice.

    A line has the fields audio_filepath and text, and may have duration, offset and speaker (those of NeMo). Paths count from
    the list's folder and lead into it. A folder has lists or folders whose names begin with train, dev and test. What is
    missing is drawn from train by a hash of the speaker, or of the file where speakers are unknown. WAV files are read as they
    are, FLAC, Ogg and MP3 with the package soundfile. Files are decoded once, mixed to one channel and resampled.

    Args:
        path: List or folder; of training utterances alone where there are lists to validate and test.
        validation: List or folder to validate; null has one in `path`, or draws it.
        test: List or folder to test; null has one in `path`, or draws it.
        audio: Folder of the audio files; null for that of each list.
        sample_rate: Samples in a second that the model receives.
        alphabet: File with a letter a line, # before a comment; null takes the letters of the training transcripts.
        lower: Lower the letters of transcripts.
        punctuation: Keep punctuation; otherwise only apostrophes within words.
        language: Language of the rule for lower letters, where it has one of its own: tr (Turkish).
        min_seconds: Length of a recording below which it is left out.
        max_seconds: Length above which it is left out; 0 for no limit.
        on_error: Action on an utterance that cannot be used: raise, or skip and name it.
        shared_speakers: Action on a speaker, or a file with parts of it, in two given splits: raise, or allow.
        spec: Specification of a run whose model is scored on the recordings of `path`: their test split, or all of them.
    """
    folder = expanded(path)
    root = expanded(audio) if audio else None
    left_out = LeftOut(skip=on_error == "skip")
    listed = _listed(folder, root, left_out, scored=spec is not None)
    before = []
    if spec is None:
        for part, given in (("validation", validation), ("test", test)):
            if given:
                listed[part] = _rows(expanded(given), root, left_out)
        letters = read_alphabet(expanded(alphabet)) if alphabet else ""
    else:
        scored = part_to_score(listed)
        before = [
            f"left out {part} ({len(rows):,} lines): {scored} is scored" for part, rows in listed.items() if part != scored
        ]
        listed = {"test": listed[scored]}
        letters = "".join(spec.targets["text"].names)
    rules = {"lower": lower, "punctuation": punctuation, "language": language}
    options = (sample_rate, rules, min_seconds, max_seconds, on_error, letters, shared_speakers, spec is not None, VERSION)
    files = sorted({row.file for rows in listed.values() for row in rows})
    key = cache_key(files, *options, [(part, [vars(row) for row in rows]) for part, rows in listed.items()])
    name = f"speech_manifest-{cache_key([], folder.resolve(), options, validation, test, audio)}"
    build = partial(
        _decode,
        listed,
        rules,
        letters,
        sample_rate,
        (min_seconds, max_seconds or math.inf),
        on_error == "skip",
        shared_speakers,
    )

    def read(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> tuple[Dataset, list[str]]:
        if spec is not None:
            test = speech_split("speech_manifest", "test", utterances_of(arrays, facts)["test"], letters, sample_rate)
            return Dataset(spec, test, test, test, str(folder), str(facts["splits"])), [*map(str, facts["notes"])]
        dataset = speech_set(
            "speech_manifest",
            utterances_of(arrays, facts),
            sample_rate=sample_rate,
            alphabet=letters or str(facts["alphabet"]),
            source=str(folder),
            splits=str(facts["splits"]),
            fitted={"text": rules},
        )
        return dataset, [*map(str, facts["notes"])]

    dataset, notes = decoded(name, key, build, read)
    before += [f"skipped {len(left_out.skipped):,}: {few(left_out.skipped)}"] * bool(left_out.skipped)
    before += [f"left out {len(left_out.unlisted):,} audio files without a transcript: {few(left_out.unlisted)}"] * bool(
        left_out.unlisted
    )
    say(*(f"speech_manifest: {note}" for note in (*before, *notes)), error=True)
    return dataset


def _rows(path: Path, root: Path | None, left_out: LeftOut) -> list[Row]:
    if not path.is_dir():
        return read_list(path, root, left_out)
    if root:
        raise DataError(
            f"data.audio: is for lists; LibriSpeech has its files beside the transcripts. Received: {root} for {path}"
        )
    return read_librispeech(path, left_out)


def _listed(path: Path, root: Path | None, left_out: LeftOut, *, scored: bool) -> dict[str, list[Row]]:
    """Return the rows of each split of a list or folder; all are "train" where it does not tell.

    What is `scored` by a trained model needs none to train on.
    """
    if not path.is_dir():
        return {"train": _rows(path, root, left_out)}
    found: dict[str, list[Row]] = {}
    for place in sorted(path.iterdir()):
        part = next((part for start, part in NAMED.items() if place.name.lower().startswith(start)), None)
        if part and (place.is_dir() or place.suffix in SUFFIXES):
            found.setdefault(part, []).extend(_rows(place, root, left_out))
    return found if "train" in found or (scored and found) else {"train": _rows(path, root, left_out)}


def _decode(
    listed: Mapping[str, Sequence[Row]],
    rules: Mapping[str, Any],
    letters: str,
    sample_rate: int,
    seconds: tuple[float, float],
    skip: bool,
    shared_speakers: str,
    folder: Path,
) -> dict[str, Any]:
    """Decode all utterances into the cached arrays of their splits."""
    say(f"Decoding {sum(map(len, listed.values())):,} utterances (once)", error=True)
    reader = _Reader(rules, letters, sample_rate, seconds, skip)
    given = {part: reader.utterances(rows) for part, rows in listed.items()}
    if listed.keys() == {"test"}:  # that a trained model is scored on
        stated = stored("speech_manifest", folder, given, sample_rate, letters)
        return {**stated, "splits": "all as test", "notes": reader.notes, "alphabet": letters}
    parts, splits = _split(given)
    notes = [*reader.notes, *_shared(given, shared_speakers)]
    _refuse_repeated(parts)
    alphabet = letters or alphabet_of(parts["train"])
    if not letters and skip:  # letters that no training transcript has
        for part in PARTS[1:]:
            outside = [bool(set(u.text) - set(alphabet)) for u in parts[part]]
            notes += [
                f"skipped: {u.where}: has letters that no training transcript has"
                for u, other in zip(parts[part], outside, strict=True)
                if other
            ]
            parts[part] = [u for u, other in zip(parts[part], outside, strict=True) if not other]
    rows = stored("speech_manifest", folder, parts, sample_rate, alphabet)
    return {**rows, "splits": splits, "notes": notes, "alphabet": alphabet}


class _Reader:
    """Utterances of rows, and what was noted on them."""

    def __init__(
        self, rules: Mapping[str, Any], letters: str, sample_rate: int, seconds: tuple[float, float], skip: bool
    ) -> None:
        self.rules, self.letters, self.sample_rate, self.seconds, self.skip = rules, letters, sample_rate, seconds, skip
        self.skipped: list[str] = []
        self.differ: list[str] = []
        self.again: list[str] = []
        self.length: list[str] = []
        self.changed: dict[str, list[str]] = {}
        self.names: dict[str, int] = {}

    def utterances(self, rows: Sequence[Row]) -> list[Utterance]:
        found = []
        for row in rows:
            try:
                if utterance := self._utterance(row):
                    found.append(utterance)
            except DataError as error:
                if not self.skip:
                    raise DataError(f"{str(error).rstrip('.')}. Leave such utterances out: data.on_error=skip") from None
                self.skipped.append(str(error))
        return found

    def _utterance(self, row: Row) -> Utterance | None:
        text = normalized(row.text, **self.rules)
        if not text:
            raise DataError(f"{row.where}: must have a transcript. Received: {row.text[:60]!r}.")
        if self.letters and (outside := sorted(set(text) - set(self.letters))):
            raise DataError(f"{row.where}: must have letters of the alphabet only. Received: {', '.join(map(repr, outside))}.")
        try:
            recording = read_audio(row.file, self.sample_rate)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None
        samples = recording.samples
        if not math.isnan(row.offset):
            if row.offset >= recording.seconds:
                raise DataError(f"{row.where}: 'offset' must be within {recording.seconds:.6g} s. Received: {row.offset:g}.")
            samples = samples[round(row.offset * self.sample_rate) :]
            if not math.isnan(row.duration):
                samples = samples[: round(row.duration * self.sample_rate)]
            if row.offset + row.duration > recording.seconds + HOP / 2 + 1e-6:
                said = f"{row.offset:.6g} s and {row.duration:.6g} s more"
                self.differ.append(f"{row.where}: says {said}, the file has {recording.seconds:.6g} s")
        elif abs(row.duration - recording.seconds) > HOP / 2 + 1e-6:
            self.differ.append(f"{row.where}: says {row.duration:.6g} s, the file has {recording.seconds:.6g} s")
        length = len(samples) / self.sample_rate
        if not self.seconds[0] <= length <= self.seconds[1]:
            self.length.append(f"{row.where} ({length:.3g} s)")
            return None
        if length <= (least := needed_seconds(text)):
            raise DataError(
                f"{row.where}: must have more than {least:.3g} s for {len(text)} letters (CTC). Received: {length:.3g} s."
            )
        for note in recording.notes:
            self.changed.setdefault(note, []).append(row.file.name)
        number = self.names[str(row.file)] = self.names.get(str(row.file), 0) + 1
        if number > 1 and math.isnan(row.offset):
            self.again.append(row.where)
        name = f"{row.file.name}" if number == 1 else f"{row.file.name}#{number}"
        return Utterance(f"{row.file.parent.name}/{name}", text, row.speaker, samples, row.where, str(row.file))

    @property
    def notes(self) -> list[str]:
        """What was changed, differs and was left out, with places."""
        found = [f"{note}: {len(names):,} utterances, first {names[0]}" for note, names in self.changed.items()]
        found += [f"{len(self.differ):,} durations are not those of the files, which count: {few(self.differ)}"] * bool(
            self.differ
        )
        found += [f"{len(self.again):,} lines have a file that is listed before: {few(self.again)}"] * bool(self.again)
        found += [f"left out {len(self.length):,} by their length: {few(self.length)}"] * bool(self.length)
        found += [f"skipped {len(self.skipped):,}: {few(self.skipped)}"] * bool(self.skipped)
        return found


def few(texts: Sequence[str]) -> str:
    """Return some texts, and that there are more."""
    return "; ".join(texts[:10]) + (" ..." if len(texts) > 10 else "")


def _split(given: Mapping[str, list[Utterance]]) -> tuple[dict[str, list[Utterance]], str]:
    """Return the utterances of each split, and how they were split."""
    missing = [part for part in PARTS if part not in given]
    if not missing:
        return dict(given), "as given"
    train = given["train"]
    known = all(u.speaker for u in train) and len({u.speaker for u in train}) >= 2 * len(missing) + 1
    groups = [u.speaker for u in train] if known else _recordings(train)
    fractions = [1 - 0.1 * len(missing) if len(missing) == 1 else 0.8, *(0.1 for _ in missing)]
    if len(set(groups)) < len(fractions):
        raise DataError(f"speech_manifest: must have at least {len(fractions)} utterances to be split. Received: {len(train)}.")
    parts = by_hash([""] * len(train), groups, fractions)
    drawn = {part: [train[i] for i in index] for part, index in zip(["train", *missing], parts, strict=True)}
    return {part: drawn.get(part) or given[part] for part in PARTS}, (
        f"{' and '.join(missing)} 10 % of train each by hash of the {'speaker' if known else 'file'}"
    )


def _recordings(utterances: Sequence[Utterance]) -> list[str]:
    """Return the recording that each utterance is of: its file, or the first file with the same samples."""
    first: dict[bytes, str] = {}
    return [first.setdefault(_digest(u), u.file or u.name) for u in utterances]


def _digest(utterance: Utterance) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(utterance.audio).data).digest()


def _refuse_repeated(parts: Mapping[str, Sequence[Utterance]]) -> None:
    """Raise if a recording is in two splits, under whatever name."""
    seen: dict[bytes, tuple[str, Utterance]] = {}
    for part in PARTS:
        for utterance in parts[part]:
            other, known = seen.setdefault(_digest(utterance), (part, utterance))
            if other != part:
                raise DataError(
                    f"{utterance.where}: must not be a recording of another split. Received: the samples of {known.where}, "
                    f"in {other} and {part}. Remove one of the two lines."
                )


def _shared(given: Mapping[str, Sequence[Utterance]], action: str) -> list[str]:
    """Say which speakers, files and transcripts are in two given splits.

    Raises:
        DataError: A speaker or a file is, and `action` is "raise".
    """
    notes = []
    parts = [part for part in PARTS if part in given]
    for number, part in enumerate(parts[1:], 1):
        before = [u for other in parts[:number] for u in given[other]]
        for kind, key in (("speakers", "speaker"), ("files", "file")):
            if both := sorted(({getattr(u, key) for u in given[part]} & {getattr(u, key) for u in before}) - {""}):
                what = f"{len(both):,} {kind} of {part} are in {' or '.join(parts[:number])} too: {few(both)}"
                if action == "raise":
                    raise DataError(f"speech_manifest: {what}. Allow it: data.shared_speakers=allow")
                notes.append(what)
        if texts := sorted({u.text for u in given[part]} & {u.text for u in before}):
            notes.append(f"{len(texts):,} transcripts of {part} are in {' or '.join(parts[:number])} too: {few(texts)}")
    return notes
