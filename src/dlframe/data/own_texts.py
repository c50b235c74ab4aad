"""Texts of the user: a column of a table, or files in folders of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from dlframe.readers.listing import few, list_folder, natural, text_of
from dlframe.readers.tables.files import Options
from dlframe.readers.tables.rows import classes_of, codes_of, hashes, parts_by_hash, parts_given
from dlframe.readers.tables.table import Table, found_name, names_of, read_table
from dlframe.readers.texts.tokens import LARGEST, Encoder, Tokens, encode_texts, overlap, parts_of, text_dataset
from dlframe.registry import Count, Natural, data
from dlframe.storage.fetch import expanded
from dlframe.types import PARTS, DataError, Dataset, DataSpec, Ragged, Split, nearest, printable, read_bytes, say

FRACTIONS = (0.6, 0.2, 0.2)
VALIDATION = (0.8, 0.2)
"""Fractions of training and validation where the test texts are given."""


@data.register(
    "text_table", inputs=("tokens",), targets=("class",), files=("path", "test"), tasks={"class": "text_classification"}
)
def text_table(
    *,
    path: str,
    text: str,
    target: str,
    test: str | None = None,
    split: str | None = None,
    group: str | None = None,
    level: Literal["word", "character"] = "word",
    vocabulary: Count = 50_000,
    min_count: Count = 2,
    length: Count | None = 512,
    cut: Literal["end", "middle", "start"] = "middle",
    tokenizer: str | None = None,
    missing: tuple[str, ...] = (),
    separator: str = "auto",
    encoding: str = "auto",
    header: Natural | None = None,
    skip: Natural = 0,
    spec: DataSpec | None = None,
) -> Dataset:
    """Texts with a class each, of a CSV, TSV, JSON lines or Parquet file, also in .gz or .zip.

    A hash of each text draws the split, 60/20/20: texts that are equal or nearly equal are in one split, and a new row moves
    no others.

    Args:
        path: The file.
        text: Column of the texts.
        target: Column of the classes.
        test: Another file, with the test rows; `path` is then split 80/20 for training and validation.
        split: Column of train, validation and test.
        group: Column of groups (an author, a customer). Each stays in one split and is resampled as a whole.
        level: Tokens: words, or characters for languages without blanks between words.
        vocabulary: Most frequent words of the training split that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; null for all.
        cut: Part of a longer text that is left out.
        tokenizer: Sub-words of a pretrained encoder, minilm or its folder, in place of level, vocabulary and min_count; null
            for words or characters, or for what the model reads.
        missing: Texts that mean a missing class, as TARGET:TEXT.
        separator: Character between fields, or comma, semicolon, tab; auto decides by the first lines.
        encoding: Encoding of the text; auto is UTF-8, or what a byte order mark says.
        header: Lines of the header; 0 for none, null decides by the first lines.
        skip: Lines above the header.
        spec: Specification of a run whose model is scored on the texts of this file: all of them are the test set.
    """
    options = Options(separator=separator, encoding=encoding, skip=skip, header=header, missing=missing)
    if spec is not None:
        given, notes = _tested(expanded(path), {"text": text, "target": target}, options, spec.classes or ())
        return _others(given, spec, notes, path)
    if test and (split or group):
        raise DataError(f"data.{'split' if split else 'group'}: must be null where data.test names a file. Received: both")
    roles = {"text": text, "target": target} | {k: v for k, v in (("split", split), ("group", group)) if v}
    file = expanded(path)
    read, columns = _read(file, roles, options)
    labels, classes, notes = classes_of(read.columns[columns["target"]])
    if len(classes) < 2:
        raise DataError(
            f"{read.file}: '{columns['target']}' must have two classes. Received: one class, '{', '.join(classes)}'"
        )
    texts, rows, more = _labeled(read, columns, labels)
    notes, labels = [*read.notes, *notes, *more], labels[rows]
    groups = None
    if group:
        codes, words = codes_of(read.columns[columns["group"]])
        groups = np.array([str(word) for word in words] + [""])[codes[rows]]
    ids = rows + 1
    if split:
        parts, said = parts_given(read, columns["split"], rows), f"as column {columns['split']} says"
    else:
        fractions = VALIDATION if test else FRACTIONS
        if group:
            parts = parts_by_hash(hashes(read, [columns["group"]])[rows], fractions)
        else:
            parts, more = parts_of(texts, labels, fractions, near=True)
            notes += more
        said = ("80/20" if test else "60/20/20") + " by hash" + (f", by groups of {columns['group']}" if group else "")
    held = [([texts[i] for i in part], labels[part], ids[part], None if groups is None else groups[part]) for part in parts]
    if test:
        given, more = _tested(expanded(test), roles, options, classes)
        held.append((*given, None))
        notes += more
        said += f", test of {Path(test).name}"
    return _dataset(
        printable(file.name.partition(".")[0]) or "texts",
        held,
        classes,
        Tokens(level=level, vocabulary=vocabulary, min_count=min_count, length=length, cut=cut, tokenizer=tokenizer),
        notes,
        source=f"{read.file}, text {columns['text']}, target {columns['target']}",
        splits=said,
        column=columns["text"],
    )


def _read(file: Path, roles: dict[str, str], options: Options) -> tuple[Table, dict[str, str]]:
    """Read the columns that the options name, and no others."""
    names = names_of(file, options)
    columns = {role: found_name(name, names, f"data.{role}", str(file)) for role, name in roles.items()}
    others = tuple(name for name in names if name not in columns.values())
    read = read_table(file, replace(options, drop=others), words=(columns["text"],))
    read.notes = [note for note in read.notes if not note.startswith("left out by data.drop")]
    for role, name in columns.items():
        read.column(name, f"data.{role}")
    return read, columns


def _labeled(read: Table, columns: dict[str, str], labels: np.ndarray) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the texts of rows that have a text and a class, these rows, and notes on the others."""
    codes, words = codes_of(read.columns[columns["text"]])
    notes = []
    for without, what in ((codes < 0, "text"), (labels < 0, "label")):
        if count := int(without.sum()):
            told = f"1 row without a {what} is" if count == 1 else f"{count:,} rows without a {what} are"
            notes.append(f"{told} left out: {read.place(int(np.argmax(without)))}")
    rows = np.flatnonzero((codes >= 0) & (labels >= 0))
    return [str(words[code]) for code in codes[rows].tolist()], rows, notes


def _tested(
    file: Path, roles: dict[str, str], options: Options, classes: Sequence[str]
) -> tuple[tuple[list[str], np.ndarray, np.ndarray], list[str]]:
    """Return texts, class indices and ids of a file of test rows, and notes."""
    read, columns = _read(file, roles, options)
    own, names, _ = classes_of(read.columns[columns["target"]])
    for index, name in enumerate(names):
        if name not in classes:
            place = read.place(int(np.argmax(own == index)))
            raise DataError(f"{place}: '{name}' must be a class of the training rows.{nearest(name, classes)}")
    labels = np.array([classes.index(name) for name in names] + [-1], np.int64)[own]
    texts, rows, notes = _labeled(read, columns, labels)
    return (texts, labels[rows], rows + 1), notes


def _dataset(
    name: str,
    held: Sequence[tuple[list[str], np.ndarray, np.ndarray, np.ndarray | None]],
    classes: Sequence[str],
    tokens: Tokens,
    notes: Sequence[str],
    *,
    source: str,
    splits: str,
    column: str = "text",
    files: bool = False,
) -> Dataset:
    """Return the texts as tokens, and say what was assumed."""
    texts, labels, ids, groups = (dict(zip(map(str, PARTS), column, strict=True)) for column in zip(*held, strict=True))
    for part, own in texts.items():
        if not own:
            raise DataError(f"{source}: the {part} split is empty: {sum(map(len, texts.values())):,} texts are too few")
    dataset, more = text_dataset(
        name,
        encode_texts([*texts.values()], tokens),
        [*labels.values()],
        [*ids.values()],
        classes,
        tokens,
        source=source,
        splits=splits,
        column=column,
        files=files,
        groups=None if groups["train"] is None else [*groups.values()],
    )
    for note in (*notes, *overlap(texts, labels), *more):
        say(f"{name}: {note}", error=True)
    return dataset


def _others(held: tuple[list[str], np.ndarray, np.ndarray], spec: DataSpec, notes: Sequence[str], source: str) -> Dataset:
    """Return texts that a trained model is scored on, as tokens of its vocabulary, and say what was left out."""
    texts, labels, ids = held
    if not texts:
        raise DataError(f"{source}: has no text to score")
    encode = Encoder(spec.fitted)
    whole = [encode.whole(text) for text in texts]
    tokens = [encode.limited(own) for own in whole]
    test = Split({"text": Ragged.of(tokens), "label": labels}, ids)
    if encode.room and (long := sum(len(own) > encode.room for own in whole)):
        notes = [
            *notes,
            f"the {encode.cut} of {long:,} of {len(texts):,} texts is left out: they have more than {encode.length} tokens",
        ]
    if strange := sum(not encode.knows(own) for own in tokens):
        notes = [*notes, f"{strange:,} of {len(texts):,} texts have no word that the run knows"]
    for note in notes:
        say(f"{spec.name}: {note}", error=True)
    return Dataset(spec, test, test, test, source, "all as test")


@data.register("text_folder", inputs=("tokens",), targets=("class",), files=("path",), tasks={"class": "text_classification"})
def text_folder(
    *,
    path: str,
    drop: tuple[str, ...] = (),
    layout: Literal["auto", "splits", "classes", "nested"] = "auto",
    encoding: str = "utf-8",
    level: Literal["word", "character"] = "word",
    vocabulary: Count = 50_000,
    min_count: Count = 2,
    length: Count | None = 512,
    cut: Literal["end", "middle", "start"] = "middle",
    tokenizer: str | None = None,
    spec: DataSpec | None = None,
) -> Dataset:
    """Files of a text each, in a folder per class, also below folders train and test.

    Without split folders, a hash of each text draws the split, 60/20/20; nearly equal texts are in one split.

    Args:
        path: The folder.
        drop: Class folders to leave out, such as one of unlabeled texts.
        layout: What the folders in it are: splits or classes; nested makes a class of every folder that holds files.
        encoding: Encoding of the files.
        level: Tokens: words, or characters for languages without blanks between words.
        vocabulary: Most frequent words of the training split that have a token of their own.
        min_count: Occurrences in the training split that such a word needs.
        length: Tokens of a text at most; null for all.
        cut: Part of a longer text that is left out.
        tokenizer: Sub-words of a pretrained encoder, minilm or its folder, in place of level, vocabulary and min_count; null
            for words or characters, or for what the model reads.
        spec: Specification of a run whose model is scored on these texts: their test split, or all of them, is the test set.
    """
    root = expanded(path)
    if not root.is_dir():
        raise DataError(f"data.path: must be a folder. Received: {root}")
    try:
        listing = list_folder(root, layout, known=None if spec is None else (*(spec.classes or ()), *drop))
    except DataError as error:  # the words of the other kind of folder
        raise DataError(str(error).replace("image_folder", "text_folder").replace("images", "texts")) from None
    parts = {part: [(file, label) for file, label in samples if label not in drop] for part, samples in listing.parts.items()}
    notes = list(listing.notes)
    if drop:
        notes.append(f"left out by data.drop: {few(list(drop))}")
    if spec is not None:
        (samples,) = parts.values()
        return _others(_files(samples, root, encoding, spec.classes or ()), spec, notes, path)
    classes = sorted({label for _, label in parts.get("train") or parts[""]}, key=natural)
    for part, samples in parts.items():
        if absent := sorted(set(classes) - {label for _, label in samples}, key=natural):
            raise DataError(
                f"text_folder: class '{absent[0]}' of train is not in {part}: are its texts unlabeled? "
                f"Leave it out: data.drop=[{absent[0]}]"
            )
    if len(classes) < 2:
        raise DataError(f"text_folder: {root} must have two classes. Received: one class, '{', '.join(classes)}'")
    read = {part: _files(samples, root, encoding, classes) for part, samples in parts.items()}
    if "" in read:
        read, said = _cut(read[""], PARTS, FRACTIONS), "60/20/20 by hash"
    elif lacking := [part for part in PARTS if part not in read]:
        fractions = FRACTIONS if len(lacking) == 2 else VALIDATION
        read |= _cut(read["train"], ("train", *lacking), fractions)
        said = f"by folders, {' and '.join(lacking)} by hash of train"
    else:
        said = "by folders"
    return _dataset(
        printable(root.name) or "texts",
        [(*read[part], None) for part in PARTS],
        classes,
        Tokens(level=level, vocabulary=vocabulary, min_count=min_count, length=length, cut=cut, tokenizer=tokenizer),
        notes,
        source=str(root),
        splits=said,
        files=True,
    )


def _files(
    samples: Sequence[tuple[Path, str]], root: Path, encoding: str, classes: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return texts, class indices and names of files."""
    texts = []
    for file, _ in samples:
        try:
            if not file.resolve().is_relative_to(root.resolve()):
                raise OSError("is a link out of the folder")
            texts.append(read_bytes(file, LARGEST).decode(encoding))
        except (OSError, LookupError) as error:
            raise DataError(f"text_folder: {file}: cannot be read: {error}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise DataError(f"{file}, line {line}: is not {encoding}. Name it: data.encoding=cp1252") from None
    labels = np.array([classes.index(label) for _, label in samples], np.int64)
    return texts, labels, np.array([text_of(file.relative_to(root)) for file, _ in samples])


def _cut(
    held: tuple[list[str], np.ndarray, np.ndarray], names: Sequence[str], fractions: Sequence[float]
) -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    """Split texts by a hash."""
    texts, labels, ids = held
    parts, notes = parts_of(texts, labels, fractions, near=True)
    for note in notes:
        say(f"text_folder: {note}", error=True)
    return {name: ([texts[i] for i in part], labels[part], ids[part]) for name, part in zip(names, parts, strict=True)}
