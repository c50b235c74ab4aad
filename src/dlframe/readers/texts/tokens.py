"""Texts as tokens: words or characters, with the vocabulary of the training split."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from dlframe.readers.tables.rows import hash64, parts_by_hash
from dlframe.readers.texts import subwords
from dlframe.readers.texts.duplicates import near_groups
from dlframe.readers.texts.subwords import Subwords
from dlframe.types import PARTS, DataError, Dataset, DataSpec, Field, Ragged, Split

PAD, UNKNOWN, FIRST = 0, 1, 2
"""Tokens: padding, a word that training has not seen (or a text without words), and the vocabulary's first word."""

WORD = re.compile(r"\w{1,64}(?:['\u2019]\w{1,64})?|[^\w\s]{1,16}")
"""A word, with an apostrophe inside, or a run of signs such as "!!!" or an emoji; bounded, as are the vocabulary's entries."""

CHARACTER = re.compile(r"\S|\s+")

LARGEST = 2**27
"""Maximum characters of the file of a text."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """How texts become tokens.

    Attributes:
        level: Words, or characters for languages that write no spaces.
        vocabulary: Most frequent words that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; None for all.
        cut: Part of a longer text that is left out.
        tokenizer: Source of sub-words, in place of level, vocabulary and min_count; None for words or characters.
    """

    level: Literal["word", "character"] = "word"
    vocabulary: int = 50_000
    min_count: int = 2
    length: int | None = 512
    cut: Literal["end", "middle", "start"] = "middle"
    tokenizer: str | None = None

    @cached_property
    def subwords(self) -> Subwords | None:
        """Sub-words of `tokenizer`."""
        return None if self.tokenizer is None else subwords.read_subwords(self.tokenizer)

    @property
    def key(self) -> str:
        """What the encoded texts depend on, besides the texts."""
        return self.level if self.subwords is None else f"subword {hash64(self.subwords.tokenizer):x}"

    @property
    def unit(self) -> str:
        """What a token is."""
        return "sub-word" if self.tokenizer else self.level

    @property
    def kept(self) -> dict[str, Any]:
        """What a run keeps, as JSON."""
        limits = {"length": self.length, "cut": self.cut}
        if self.subwords:
            return {"level": "subword", **limits, **self.subwords.kept}
        return {"level": self.level, "vocabulary": self.vocabulary, "min_count": self.min_count, **limits}


@dataclass(frozen=True)
class Encoded:
    """Texts of each split as ranks of their words, by frequency in the training split, the most frequent first.

    Attributes:
        parts: By split, ranks (tokens of all texts,) int32, -1 for words that training does not have.
        words: Words by rank.
        counts: (words,) int64, occurrences in the training split.
    """

    parts: tuple[Ragged, ...]
    words: list[str]
    counts: np.ndarray


def split_text(text: str, level: str) -> list[str]:
    """Return the tokens of a text, in lower case, composed (NFC)."""
    lowered = unicodedata.normalize("NFC", text).lower()
    if level == "word":
        return WORD.findall(lowered)
    return [" " if token.isspace() else token for token in CHARACTER.findall(lowered.strip())]


def encode_texts(parts: Sequence[Iterable[str]], tokens: Tokens) -> Encoded:
    """Split the texts of each part, the training texts first, and rank the words of these; sub-words keep their numbers."""
    if own := tokens.subwords:
        pieces = tuple(_joined(subwords.split([*part], own.kept)) for part in parts)
        counts = np.bincount(pieces[0].values, minlength=len(own.vocabulary))
        return Encoded(pieces, [*own.vocabulary], counts)
    seen: dict[str, int] = {}
    samples = [
        [np.array([seen.setdefault(word, len(seen)) for word in split_text(text, tokens.level)], np.int32) for text in part]
        for part in parts
    ]
    ragged = [_joined(part) for part in samples]
    counts = np.bincount(ragged[0].values, minlength=len(seen))
    words = np.array(list(seen), dtype=object)
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda i: (-counts[i], words[i]))
    ranks = np.full(len(seen) or 1, -1, np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return Encoded(tuple(part.like(ranks[part.values]) for part in ragged), [str(words[i]) for i in order], counts[order])


def _joined(samples: list[np.ndarray]) -> Ragged:
    return Ragged.of(samples) if samples else Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))


def limited(encoded: Encoded, tokens: Tokens) -> tuple[list[Ragged], list[str], list[str]]:
    """Return the tokens of each part, the vocabulary, and what was cut."""
    prefix, suffix = (tokens.subwords.prefix, tokens.subwords.suffix) if tokens.subwords else ((), ())
    size = min(tokens.vocabulary, int((encoded.counts >= tokens.min_count).sum()))
    size = len(encoded.words) if tokens.subwords else size
    parts, notes = [], []
    length = _room(tokens.length, len(prefix) + len(suffix))
    if not size:
        notes.append(f"no word occurs data.min_count={tokens.min_count} times in training: all are one token")
    for name, part in zip(PARTS, encoded.parts, strict=True):
        values = np.where((part.values >= 0) & (part.values < size), part.values + FIRST, UNKNOWN).astype(np.int32)
        whole = part.like(values) if prefix or suffix else _filled(part.like(values))
        if length and (long := int((whole.lengths > length).sum())):
            notes.append(
                f"{name}: the {tokens.cut} of {long:,} of {len(whole):,} texts is left out: they have more than "
                f"data.length={tokens.length} tokens, the longest {int(whole.lengths.max()) + len(prefix) + len(suffix):,}"
            )
        if empty := int((part.lengths == 0).sum()):
            notes.append(f"{name}: {empty:,} {'text has' if empty == 1 else 'texts have'} no word")
        parts.append(_framed(shortened(whole, length, tokens.cut), prefix, suffix))
    return parts, encoded.words[:size], notes


def _room(length: int | None, framing: int) -> int | None:
    """Return the tokens of a text besides those at its ends.

    Raises:
        DataError: There are none.
    """
    if length is None:
        return None
    if length <= framing:
        raise DataError(f"data.length: must be above {framing}, the tokens at the ends of every text. Received: {length}")
    return length - framing


def _framed(texts: Ragged, prefix: Sequence[int], suffix: Sequence[int]) -> Ragged:
    """Put the numbers of prefix and suffix around each text, as tokens."""
    if not prefix and not suffix:
        return texts
    ends = [np.array(ids, np.int32) + FIRST for ids in (prefix, suffix)]
    offsets = texts.offsets + np.arange(len(texts) + 1) * (len(prefix) + len(suffix))
    values = np.empty(offsets[-1], np.int32)
    inner = np.ones(len(values), bool)
    for at, own in ((offsets[:-1], ends[0]), (offsets[1:] - len(suffix), ends[1])):
        for i, token in enumerate(own):
            values[at + i], inner[at + i] = token, False
    values[inner] = texts.values
    return Ragged(values, offsets)


def _filled(texts: Ragged) -> Ragged:
    """Give a text without tokens one that says so."""
    lengths = np.maximum(texts.lengths, 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if offsets[-1] == len(texts.values):
        return texts
    values = np.full(offsets[-1], UNKNOWN, np.int32)
    values[np.repeat(texts.lengths > 0, lengths)] = texts.values
    return Ragged(values, offsets)


def shortened(texts: Ragged, length: int | None, cut: str) -> Ragged:
    """Return texts of at most `length` tokens, without their end, middle or start."""
    whole = texts.lengths
    if not length or not (whole > length).any():
        return texts
    kept = np.minimum(whole, length)
    head = np.where(whole > length, {"end": length, "middle": (length + 1) // 2, "start": 0}[cut], kept)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept)
    late = place >= np.repeat(head, kept)
    source = np.repeat(texts.offsets[:-1], kept) + place + late * np.repeat(whole - kept, kept)
    return Ragged(texts.values[source], offsets)


# --- data sets


def folded(text: str) -> str:
    """Return a text without case and repeated blanks."""
    return " ".join(text.split()).casefold()


def parts_of(
    texts: Sequence[str], labels: np.ndarray, fractions: Sequence[float], *, near: bool = False
) -> tuple[list[np.ndarray], list[str]]:
    """Split texts by a hash: equal ones, apart from case and blanks, are in one part, and a new text moves no other.

    Args:
        texts: The texts.
        labels: (texts,) class indices.
        fractions: Fractions of the parts.
        near: Keep nearly equal texts in one part too; a new text moves those that are nearly equal to it.

    Returns:
        Ascending positions of each part, and notes.
    """
    hashed = np.array([hash64(folded(text)) for text in texts], np.uint64)
    notes = []
    if near:
        groups = near_groups(texts)
        sizes = np.bincount(groups, minlength=len(texts))
        if (many := sizes > max(4, len(texts) // 10)).any():
            notes.append(
                f"{int(sizes[many].sum()):,} texts are nearly equal to more than a tenth of all, as of a template: they are "
                "not kept in one split"
            )
            groups = np.where(many[groups], np.arange(len(texts)), groups)
        least = np.full(len(texts), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(least, groups, hashed)
        if moved := int((least[groups] != hashed).sum()):
            notes.append(
                f"{moved:,} {'text is' if moved == 1 else 'texts are'} nearly equal to another, in whose split they are"
            )
        hashed = least[groups]
    return parts_by_hash(hashed, fractions, labels), notes


def overlap(texts: Mapping[str, Sequence[str]], labels: Mapping[str, np.ndarray]) -> list[str]:
    """Say how many texts of a split are in an earlier one too, or nearly equal to one."""
    notes = []
    parts = list(texts)
    groups = near_groups([text for own in texts.values() for text in own])
    in_part = np.split(groups, np.cumsum([len(own) for own in texts.values()])[:-1])
    for number, part in enumerate(parts[1:], 1):
        before = parts[:number]
        exact = {text: label for name in before for text, label in zip(texts[name], labels[name].tolist(), strict=True)}
        alike = {folded(text) for text in exact}
        same = [exact.get(text) for text in texts[part]]
        equal = sum(label is not None for label in same)
        copies = np.isin(in_part[number], np.concatenate(in_part[:number]))
        near = sum(folded(text) in alike or copy for text, copy in zip(texts[part], copies.tolist(), strict=True))
        other = sum(label not in (None, own) for label, own in zip(same, labels[part].tolist(), strict=True))
        if near:
            more = f", {near:,} nearly" if near > equal else ""
            notes.append(
                f"{part}: {equal:,} of {len(same):,} texts are in {' or '.join(before)} too{more}"
                f"{f', {other:,} of them with another label' if other else ''}: the score partly measures memory"
            )
    return notes


def text_dataset(
    name: str,
    encoded: Encoded,
    labels: Sequence[np.ndarray],
    ids: Sequence[np.ndarray],
    classes: Sequence[str],
    tokens: Tokens,
    *,
    source: str,
    splits: str,
    column: str = "text",
    files: bool = False,
    groups: Sequence[np.ndarray] | None = None,
) -> tuple[Dataset, list[str]]:
    """Return texts with one class each, and notes.

    Args:
        name: Name of the data set.
        encoded: The texts of train, validation and test.
        labels: Class indices of each split.
        ids: Names of the texts of each split.
        classes: Names of the classes.
        tokens: How texts become tokens.
        source: Source, for the header.
        splits: Rule of the split, for the header.
        column: Column of the texts in a table, for predictions.
        files: Whether each file is one text, for predictions.
        groups: Groups of the texts of each split.
    """
    parts, words, notes = limited(encoded, tokens)
    for part, own in zip(PARTS, labels, strict=True):
        if absent := sorted(set(range(len(classes))) - set(np.unique(own).tolist())):
            named = ", ".join(classes[i] for i in absent[:6])
            notes.append(f"{part} has no text of {len(absent)} of {len(classes)} classes: {named}")
    fitted = {
        "vocabulary": words,
        "text": {**tokens.kept, "column": column, "files": files},
        "counts": np.bincount(labels[0], minlength=len(classes)).tolist(),
    }
    spec = DataSpec(
        name,
        {"text": Field(kind="tokens", dtype="int32", shape=(None,))},
        {"label": Field(kind="class", dtype="int64", names=tuple(classes))},
        fitted,
    )
    columns = zip(parts, labels, ids, groups or (None, None, None), strict=True)
    train, validation, test = (
        Split({"text": text, "label": own.astype(np.int64)}, names, groups=group) for text, own, names, group in columns
    )
    return Dataset(spec, train, validation, test, f"{source}, {len(words):,} {tokens.unit}s", splits), notes


def words_of(tokens: Sequence[int], fitted: Mapping[str, Any]) -> list[str]:
    """Return the words of tokens; "?" for one that training has not seen."""
    vocabulary = fitted["vocabulary"]
    return [str(vocabulary[token - FIRST]) if FIRST <= token < len(vocabulary) + FIRST else "?" for token in tokens]


class Encoder:
    """Encoder of new texts as those of a run.

    Args:
        fitted: What the run keeps of its data; may be somebody else's.

    Raises:
        DataError: It does not describe texts.
    """

    def __init__(self, fitted: Mapping[str, Any]) -> None:
        try:
            kept = fitted["text"]
            self.place = {str(word): rank + FIRST for rank, word in enumerate(fitted["vocabulary"])}
            self.level, self.cut, self.column = (str(kept[key]) for key in ("level", "cut", "column"))
            self.length = None if kept["length"] is None else int(kept["length"])
            self.files = bool(kept["files"])
            if self.cut not in ("end", "middle", "start") or self.level not in ("word", "character", "subword"):
                raise ValueError(self.cut)
            self.ends: list[list[int]] = [[], []]
            self.kept: dict[str, Any] = {}
            if self.level == "subword":
                self.kept = {"tokenizer": str(kept["tokenizer"])}
                self.ends = [[int(i) for i in kept[end]] for end in ("prefix", "suffix")]
                if not all(0 <= i < len(fitted["vocabulary"]) for end in self.ends for i in end):
                    raise ValueError(self.ends)
        except (KeyError, TypeError, ValueError):
            raise DataError("spec.json: holds no vocabulary of texts") from None

    def __call__(self, text: str) -> np.ndarray:
        """Return the tokens (length,) int32 of a text."""
        return self.limited(self.whole(text))

    @property
    def room(self) -> int | None:
        """Tokens of a text besides those at its ends; None for any number."""
        return _room(self.length, sum(map(len, self.ends)))

    def whole(self, text: str) -> np.ndarray:
        """Return the tokens (length,) int32 of a text before it is cut, without those at its ends."""
        if self.level == "subword":
            values = subwords.split([text], self.kept)[0]
            # A tokenizer of somebody else may know more than the vocabulary.
            found = np.where(values < len(self.place), values + FIRST, UNKNOWN).astype(np.int32)
            return found if len(found) or any(self.ends) else np.array([UNKNOWN], np.int32)
        return np.array([self.place.get(word, UNKNOWN) for word in split_text(text, self.level)] or [UNKNOWN], dtype=np.int32)

    def limited(self, tokens: np.ndarray) -> np.ndarray:
        """Return a whole text (length,) as the model reads it: cut, with the tokens at its ends."""
        return _framed(shortened(Ragged.of([tokens]), self.room, self.cut), *self.ends).values

    def knows(self, tokens: np.ndarray) -> bool:
        """Return whether a word of an encoded text (length,) is in the vocabulary."""
        prefix, suffix = map(len, self.ends)
        unknown = [UNKNOWN]
        if self.level == "subword" and (number := subwords.unknown(self.kept)) is not None:
            unknown.append(number + FIRST)
        return not np.isin(tokens[prefix : len(tokens) - suffix], unknown).all()
