"""Inputs of predictions: image files, folders, tables, arrays and texts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from dlframe.readers.arrays import columns_of, converted, load_arrays
from dlframe.readers.images import FORMATS, displayed_size, header_of, read_image
from dlframe.readers.modes import Decoding
from dlframe.types import DataError, DataSpec, Field, nearest, printable, read_text, say

ARRAYS = (".npy", ".npz")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of tables of texts; any other file has texts alone."""

PACKED = tuple(f"{suffix}{packed}" for suffix in TABLES for packed in (".gz", ".zip"))
IGNORED = ("thumbs.db", "desktop.ini")
"""Files of operating systems, skipped like hidden files."""


@dataclass(frozen=True)
class Sample:
    """Sample to predict: its name and columns; of an image file, the file, and width and height as displayed.

    `given` are the fields of its row in a table, as texts, where they are kept. One that comes from a pipe is predicted
    `at_once`, before the next is there.
    """

    name: str
    columns: dict[str, np.ndarray]
    file: Path | None = None
    size: tuple[int, int] | None = None
    given: dict[str, str | None] | None = None
    at_once: bool = False


class Inputs:
    """Reader of samples from files and folders.

    Args:
        spec: Data specification of the model.
        on_error: Action on an unreadable file: raise, or skip and report the file.
        every: Predict from every window of a series instead of the last one.
        keep: Keep the fields of the rows of tables.
        encode: Function from a file to columns; returns None for the default reader.
        lookup: Function from an argument to names and columns of samples; returns None for a file or folder.
        stream: Function from standard input to names and columns of samples; returns None if it is not read.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        every: bool = False,
        keep: bool = False,
        encode: Callable[[Path], dict[str, np.ndarray] | None] = lambda file: None,
        lookup: Callable[[str], list[tuple[str, dict[str, np.ndarray]]] | None] = lambda text: None,
        stream: Callable[[BinaryIO], Iterator[tuple[str, dict[str, np.ndarray]]] | None] = lambda source: None,
    ) -> None:
        self.spec = spec
        self.encode = encode
        self.lookup = lookup
        self.stream = stream
        self.on_error = on_error
        self.every = every
        self.keep = keep
        self.skipped = 0
        self._assumed: dict[str, tuple[int, str]] = {}
        # The rules of transcripts, which are a target, have this name too.
        has_texts = "text" in spec.fitted and spec.of_kind("tokens", spec.inputs)
        self.texts = Texts(spec, self._count) if has_texts else None

    @property
    def assumed(self) -> list[str]:
        """Conversions: "resized to 8x8: 12 inputs, such as photo.jpg (480x640)"."""
        return [
            f"{what}: {count:,} {'input,' if count == 1 else 'inputs, such as'} {first}"
            for what, (count, first) in self._assumed.items()
        ]

    def _assume(self, what: str, file: Path, was: str = "") -> None:
        self._count(what, f"{shown(file.name)} ({was})" if was else shown(file.name))

    def _count(self, what: str, where: str) -> None:
        count, first = self._assumed.get(what, (0, where))
        self._assumed[what] = (count + 1, first)

    def read(self, paths: Iterable[Path | str]) -> Iterator[Sample]:
        """Yield the samples of files and folders, sorted by name.

        For a model of texts, what names no file is a text itself, and "-" the lines of standard input; for one of speech, it
        is a WAV file.

        Raises:
            DataError: A path does not exist, has an unsupported type, or is unreadable.
        """
        for given in paths:
            path = Path(given)
            text = str(given)
            if not text and not self.texts:  # as a path, the current directory
                raise DataError("predict: an input must be the name of a file or folder. Received: ''.")
            if path.suffix.lower() not in ARRAYS and (found := self.lookup(text)) is not None:
                yield from (Sample(shown(name), columns) for name, columns in found)
                continue
            if self.texts and (text == "-" or not text.strip() or not (_exists(path) or _is_name(text))):
                if text == "-":
                    yield from self.texts.lines(_lines_of_input(), "standard input")
                else:
                    yield self.texts.sample(text)
                continue
            if text == "-" and (streamed := self.stream(_bytes_of_input())) is not None:
                yield from (Sample(name, columns, at_once=True) for name, columns in streamed)
                continue
            if not _exists(path):
                beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise DataError(f"predict: no such file or folder: {shown(path)}.{nearest(path.name, beside)}")
            for file in sorted(_files(path)) if path.is_dir() else [path]:
                try:
                    yield from self._samples(file)
                except DataError as error:
                    told = f"predict: {shown(str(error).removeprefix('predict: ').rstrip('.'))}."
                    if self.on_error == "raise":
                        raise DataError(f"{told} Skip such files: on_error=skip") from None
                    self.skipped += 1
                    say(f"skipped: {told.removeprefix('predict: ')}", error=True)

    def _samples(self, file: Path) -> Iterator[Sample]:
        if not file.is_file():  # pipes block forever
            raise DataError(f"{file} is not a file")
        if file.suffix.lower() in ARRAYS:
            yield from self._of_arrays(file)
            return
        if (columns := self.encode(file)) is not None:
            yield Sample(shown(file), columns)
            return
        if self.texts:
            yield from self._with_fields(self.texts.read(file), file)
            return
        if "table" in self.spec.fitted:
            yield from self._with_fields(self._rows(file), file)
            return
        if len(self.spec.inputs) == 1:
            (name, field), *_ = self.spec.inputs.items()
            if field.kind == "image" and not field.ragged:
                yield Sample(shown(file), {name: self._image(file, field)}, file, displayed_size(file))
                return
            if field.kind == "series" and not field.ragged:
                yield from self._windows(file, name, field)
                return
        kinds = ", ".join(f"{name} ({field.kind})" for name, field in self.spec.inputs.items())
        raise DataError(f"{file} cannot be read as {kinds}. Use a .npz file with the arrays {', '.join(self.spec.inputs)}")

    def _of_arrays(self, file: Path) -> Iterator[Sample]:
        where = shown(file)
        arrays = columns_of(load_arrays(file, self.spec), self.spec, where)
        for i in range(len(next(iter(arrays.values())))):
            columns = {name: converted(arrays[name][i], field, where, name) for name, field in self.spec.inputs.items()}
            yield Sample(f"{where}[{i}]", columns)

    def _rows(self, file: Path) -> Iterator[Sample]:
        """Yield the rows of a table, with the columns and kinds of training."""
        from dlframe.readers.tables.rows import cardinalities, read_rows  # Arrow takes its time to import

        arrays, notes = read_rows(file, self.spec.fitted["table"])
        for note in notes:
            self._assume(note, file)
        if {name: array.shape[1:] for name, array in arrays.items()} != {
            name: field.shape for name, field in self.spec.inputs.items()
        } or cardinalities(self.spec.fitted["table"]) != self.spec.fitted.get("cardinalities"):
            raise DataError("spec.json: holds other columns than its inputs")
        for i in range(len(next(iter(arrays.values())))):
            columns = {name: converted(arrays[name][i], field, str(file), name) for name, field in self.spec.inputs.items()}
            yield Sample(f"{shown(file)} row {i + 1}", columns)

    def _with_fields(self, samples: Iterator[Sample], file: Path) -> Iterator[Sample]:
        """Yield samples with the fields of their rows, if they are to be kept and the file is a table."""
        if not self.keep or not (file.suffix.lower() in TABLES or file.name.lower().endswith(PACKED)):
            yield from samples
            return
        from dlframe.readers.tables.files import Options  # Arrow takes its time to import
        from dlframe.readers.tables.table import names_of, read_table, texts_of

        names = names_of(file, Options())
        table = read_table(file, Options(), words=names, keep=names)
        columns = {name: texts_of(column).to_pylist() for name, column in table.columns.items()}
        for i, sample in enumerate(samples):
            yield replace(sample, given={name: column[i] for name, column in columns.items()})

    def _image(self, file: Path, field: Field) -> np.ndarray:
        channels, height, width = field.shape
        if channels not in (1, 3):
            raise DataError(f"{file}: images must have 1 or 3 channels. The model takes {channels}: use a .npy file")
        assert height is not None
        assert width is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of decoders, whose errors are enough
            header = header_of(file)
            decoding = Decoding.of(self.spec.fitted)
            picture = read_image(file, (height, width), "rgb" if channels == 3 else "grayscale", decoding=decoding)
        if picture.pixels is None:
            takes = f". The model takes images ({', '.join(FORMATS)}) or arrays" if picture.fault == "is not an image" else ""
            raise DataError(f"{file} {'is empty' if not file.stat().st_size else picture.fault}{takes}")
        (rows, columns), mode = header or ((height, width), "")
        if (rows, columns) != (height, width):
            changed = {"crop": " and cropped at the center", "pad": " with margins", "squash": " without its aspect ratio"}
            also = changed[decoding.fit] * (rows * width != columns * height)
            self._assume(f"resized{also} to {height}x{width}", file, f"{rows}x{columns}")
        if mode not in ("RGB" if channels == 3 else "L", ""):
            self._assume(f"converted to {'RGB' if channels == 3 else 'gray'}", file, mode)
        for note in picture.notes:
            self._assume(note, file)
        return picture.pixels

    def _windows(self, file: Path, name: str, field: Field) -> Iterator[Sample]:
        """Yield the last window of a series, or all windows."""
        from dlframe.readers.tables.series import read_panel, with_known

        length, features = field.shape
        horizon = next((int(shape[0] or 0) for target in self.spec.targets.values() if (shape := target.shape)), 0)
        assert length is not None
        assert features is not None
        kept = self.spec.fitted.get("series") or {"targets": field.names[:1], "features": field.names[1:]}
        try:
            panel = read_panel(file, known=kept, horizon=horizon)
        except (TypeError, KeyError, AttributeError):
            raise DataError("spec.json: holds no columns of a series") from None
        for note in panel.notes:
            self._assume(note, file)
        for series in panel.series:
            values, ids = with_known(series, horizon).values, series.ids
            told = f" of {series.key}" if series.key else ""
            if values.shape[1] != features:
                raise DataError(f"{file} must have {features} columns besides the time. Received: {values.shape[1]}")
            if len(ids) < length:
                raise DataError(f"{file} must have at least {length} rows{told}. Received: {len(ids)}")
            if series.known.shape[1] and (rows := len(series.known) - len(ids)) < horizon:
                columns = ", ".join(kept["known_future"])
                raise DataError(
                    f"{file} must have {columns} of the {horizon} rows after the last value{told}: rows with an empty target. "
                    f"Received: {rows}"
                )
            if len(ids) > length and not self.every:
                self._assume(f"used the last {length} rows (every=true predicts from every window)", file, f"{len(ids):,} rows")
            for end in range(length if self.every else len(ids), len(ids) + 1):
                window = converted(values[end - length : end], field, str(file), name)
                yield Sample(f"{shown(file)}{told} to {ids[end - 1]}", {name: window})


class Texts:
    """Reader of texts.

    Args:
        spec: Data specification of a model of texts.
        count: Function that counts what is to be told, and where it was first.
    """

    def __init__(self, spec: DataSpec, count: Callable[[str, str], None]) -> None:
        if len(spec.inputs) != 1:
            raise DataError("spec.json: holds other columns than a text")
        self.input = next(iter(spec.inputs))
        from dlframe.readers.texts.tokens import Encoder  # Arrow takes its time to import

        self.encoder = Encoder(spec.fitted)
        self.count = count

    def sample(self, text: str, name: str | None = None, where: str = "") -> Sample:
        """Return a text as a sample, named by itself or `name`; one of which the model knows nothing is counted."""
        name = shown(text) if name is None else name
        tokens = self.encoder(text)
        if not self.encoder.knows(tokens):
            what = "no word that the model knows" if text.strip() else "empty text"
            self.count(f"{what}, the prediction is a guess", where or name or "''")
        return Sample(name, {self.input: tokens})

    def lines(self, lines: Iterable[str], source: str) -> Iterator[Sample]:
        """Yield a text per line."""
        for number, line in enumerate(lines, 1):
            yield self.sample(line, where=f"line {number} of {source}")

    def read(self, file: Path) -> Iterator[Sample]:
        """Yield the texts of a file: a column of a table, the lines of a .txt, or all of it where training read files."""
        if self.encoder.files and file.suffix.lower() not in TABLES:
            yield self.sample(self._whole(file), shown(file))
        elif file.suffix.lower() not in TABLES and not file.name.lower().endswith(PACKED):
            self.count("a text per line", shown(file.name))
            yield from self.lines(self._whole(file).splitlines(), shown(file.name))
        else:
            from dlframe.readers.tables.files import Options  # Arrow takes its time to import
            from dlframe.readers.tables.rows import codes_of
            from dlframe.readers.tables.table import found_name, names_of, read_table

            names = names_of(file, Options())
            name = found_name(self.encoder.column, names, "the column of texts", shown(file))
            table = read_table(file, Options(drop=tuple(other for other in names if other != name)), words=(name,))
            codes, words = codes_of(table.column(name, "the column of texts"))
            for row, code in enumerate(codes.tolist(), 1):
                yield self.sample(str(words[code]) if code >= 0 else "", f"{shown(file)} row {row}")

    def _whole(self, file: Path) -> str:
        from dlframe.readers.texts.tokens import LARGEST

        try:
            return read_text(file, LARGEST).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise DataError(f"{file}, line {line}: is not UTF-8") from None
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error}") from None


def _is_name(text: str) -> bool:
    """Return whether what is given looks like the name of a file, and not like a text."""
    return not any(c.isspace() for c in text) and ("/" in text or Path(text).suffix.lower() in (*TABLES, ".txt", ".gz", ".zip"))


def _lines_of_input() -> Iterator[str]:
    """Yield the lines of standard input."""
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def _bytes_of_input() -> BinaryIO:
    """Return standard input, to be read as bytes."""
    lines = sys.stdin
    return lines.buffer


def shown(path: Path | str) -> str:
    """Escape invalid bytes and control characters of a path."""
    return printable(str(path).encode(errors="backslashreplace").decode())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or has a null character
        return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, without hidden and system files."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not path.is_dir() and not hidden and path.name.lower() not in IGNORED:
            yield path
