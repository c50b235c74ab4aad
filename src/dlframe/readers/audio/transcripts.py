"""Transcripts as letters, and data sets of utterances."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.audio.mel import needed_steps, steps_of
from dlframe.statistics.transcripts.edits import INVISIBLE
from dlframe.types import PARTS, Column, DataError, Dataset, DataSpec, Field, Ragged, Split, check_dataset, printable, read_text

APOSTROPHES = dict.fromkeys(map(ord, "\u2019\u2018\u02bc\uff07\u00b4\u0060\u02b9\u2032\u201b"), "'")
"""What is written for an apostrophe."""


def normalized(text: str, *, lower: bool = True, punctuation: bool = False, language: str = "") -> str:
    """Return a transcript in NFC, with single spaces.

    Args:
        text: Transcript.
        lower: Lower the letters.
        punctuation: Keep punctuation. Otherwise it becomes a space, except for apostrophes within words, which are made one
            character.
        language: "tr" has an i with and one without a dot, also as capitals.
    """
    text = unicodedata.normalize("NFC", text.translate(INVISIBLE))
    if lower and language == "tr":
        text = text.replace("I", "\u0131")
    if lower:
        # "\u0130".lower() is an i and a combining dot, which no alphabet has.
        text = unicodedata.normalize("NFC", text.replace("\u0130", "i").lower())
    if not punctuation:
        text = text.translate(APOSTROPHES)
        within = (
            c == "'" and 0 < i < len(text) - 1 and text[i - 1].isalpha() and text[i + 1].isalpha() for i, c in enumerate(text)
        )
        text = "".join(c if keep or unicodedata.category(c)[0] in "LMN" else " " for c, keep in zip(text, within, strict=True))
    return " ".join(text.split())


@dataclass(frozen=True)
class Utterance:
    """Recording of a sentence.

    Attributes:
        name: Permanent name.
        text: Transcript, normalized.
        speaker: Name of the speaker; empty if unknown.
        audio: (samples,) float32, full scale 1.
        where: File and line, for messages.
        file: Audio file, of which it may be a part.
    """

    name: str
    text: str
    speaker: str
    audio: np.ndarray
    where: str = ""
    file: str = ""


def read_alphabet(path: Path) -> str:
    """Read an alphabet: a letter a line, a line that begins with # is a comment, \\# is the letter #.

    Raises:
        DataError: With file and line: a line has no or several letters, or a letter twice.
    """
    letters: dict[str, int] = {}
    try:
        lines = read_text(path, 2**20).removeprefix("\ufeff").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.alphabet: cannot read {path}: {error}.") from None
    for number, line in enumerate(lines[: -1 if not lines[-1] else None], 1):
        letter = unicodedata.normalize("NFC", line.removesuffix("\r"))
        if letter.startswith("#"):
            continue
        letter = "#" if letter == "\\#" else letter
        if len(letter) != 1:
            raise DataError(f"{path}:{number}: must have one letter. Received: {printable(letter[:20])!r}.")
        if letter in letters:
            raise DataError(f"{path}:{number}: must be another letter than in line {letters[letter]}. Received: {letter!r}.")
        letters[letter] = number
    return "".join(letters)


def encoded(text: str, alphabet: Mapping[str, int], where: str) -> np.ndarray:
    """Return the letters of a transcript as their places in the alphabet.

    Raises:
        DataError: The transcript is empty or has a letter that the alphabet lacks.
    """
    if not text:
        raise DataError(f"{where}: must have a transcript. Received: none.")
    if outside := sorted(set(text) - alphabet.keys()):
        shown = ", ".join(f"'{printable(letter)}' (U+{ord(letter):04X})" for letter in outside[:6])
        raise DataError(
            f"{where}: must have letters of the alphabet only ('{printable(''.join(alphabet))}'). Received: {shown} "
            f"in '{printable(text[:60])}'."
        )
    return np.array([alphabet[letter] for letter in text], np.int64)


def speech_set(
    name: str,
    parts: Mapping[str, Sequence[Utterance]],
    *,
    sample_rate: int,
    source: str,
    splits: str,
    alphabet: str = "",
    fitted: Mapping[str, Any] | None = None,
) -> Dataset:
    """Return a data set of utterances.

    Args:
        name: Name of the data set.
        parts: Split -> its utterances.
        sample_rate: Samples in a second of all recordings.
        source: Where they come from.
        splits: How they were split.
        alphabet: Letters; empty takes those of the training transcripts, sorted.
        fitted: Further measurements.

    Raises:
        DataError: A split is empty, or a transcript is empty, has a letter outside the alphabet, or more letters than its
            recording can carry.
    """
    letters = alphabet or alphabet_of(parts["train"])
    found = {part: speech_split(name, part, utterances, letters, sample_rate) for part, utterances in parts.items()}
    longest = max(len(utterance.audio) for utterance in parts["train"])
    spec = DataSpec(
        name,
        inputs={"audio": Field(kind="audio", dtype="float32", shape=(None,))},
        targets={"text": Field(kind="tokens", dtype="int64", shape=(None,), names=tuple(letters))},
        fitted={"sample_rate": sample_rate, "longest_seconds": longest / sample_rate, **(fitted or {})},
    )
    train, validation, test = (found[part] for part in PARTS)
    return check_dataset(Dataset(spec, train, validation, test, source, splits))


def speech_split(name: str, part: str, utterances: Sequence[Utterance], letters: str, sample_rate: int) -> Split:
    """Return a split of utterances; arguments and errors as of `speech_set`."""
    texts = checked(name, {part: utterances}, letters, sample_rate)[part]
    columns: dict[str, Column] = {"audio": Ragged.of([u.audio for u in utterances]), "text": Ragged.of(texts)}
    groups = np.array([u.speaker for u in utterances]) if all(u.speaker for u in utterances) else None
    return Split(columns, np.array([u.name for u in utterances]), groups=groups)


def alphabet_of(utterances: Sequence[Utterance]) -> str:
    """Return the letters of transcripts, sorted."""
    return "".join(sorted({letter for utterance in utterances for letter in utterance.text}))


def checked(name: str, parts: Mapping[str, Sequence[Utterance]], letters: str, sample_rate: int) -> dict[str, list[np.ndarray]]:
    """Return the letters of each transcript as places in the alphabet, by split; see `speech_set`."""
    places = {letter: i for i, letter in enumerate(letters)}
    found: dict[str, list[np.ndarray]] = {}
    for part, utterances in parts.items():
        if not utterances:
            raise DataError(f"data={name}: the {part} split is empty.")
        found[part] = []
        for utterance in utterances:
            where = utterance.where or f"{name}: {utterance.name}"
            found[part].append(encoded(utterance.text, places, where))
            needed, has = needed_steps(utterance.text), steps_of(len(utterance.audio), sample_rate)
            if needed > has:
                seconds = len(utterance.audio) / sample_rate
                raise DataError(
                    f"{where}: must have a transcript of at most {has} letters for {seconds:.3g} s, 50 a second and a blank "
                    f"between equal ones (CTC). Received: {needed}."
                )
    return found


def stored(
    name: str, folder: Path, parts: Mapping[str, Sequence[Utterance]], sample_rate: int, letters: str = ""
) -> dict[str, Any]:
    """Write the recordings of each split into a folder of the cache, and return the rest as metadata.

    Raises:
        DataError: As `speech_set`.
    """
    checked(name, parts, letters or alphabet_of(parts["train"]), sample_rate)
    rows: dict[str, Any] = {}
    for part, utterances in parts.items():
        np.save(folder / f"{part}-audio.npy", np.concatenate([u.audio for u in utterances]), allow_pickle=False)
        rows[part] = [[u.name, u.text, u.speaker, len(u.audio), u.where] for u in utterances]
    return {"utterances": rows}


def utterances_of(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> dict[str, list[Utterance]]:
    """Return the utterances of each split that `stored` has written.

    Raises:
        KeyError, ValueError: The arrays or metadata are damaged.
    """
    parts: dict[str, list[Utterance]] = {}
    for part, rows in facts["utterances"].items():
        audio, start = arrays[f"{part}-audio"], 0
        parts[part] = []
        for name, text, speaker, samples, where in rows:
            parts[part].append(Utterance(str(name), str(text), str(speaker), audio[start : start + samples], str(where)))
            start += samples
        if start != len(audio):
            raise ValueError("the recordings are not those of the utterances")
    return parts
