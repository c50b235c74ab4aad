"""Lists of utterances: JSON lines with NeMo's fields, LibriSpeech's folders, Common Voice's tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlframe.types import DataError, nearest, printable, read_bytes

LARGEST = 2**30
"""Maximum bytes of a list."""

LONGEST = 1e6
"""Seconds of a recording, or before an utterance, at most."""

SUFFIXES = (".jsonl", ".json", ".tsv")


@dataclass(frozen=True)
class Row:
    """Utterance of a list.

    Attributes:
        file: Audio file, inside the folder of the list.
        text: Transcript as it stands.
        speaker: Name of the speaker; empty if unknown.
        where: File and line.
        offset: Start in the file, in seconds; NaN if the whole file is the utterance.
        duration: Length in seconds that the list says; NaN if it says none.
    """

    file: Path
    text: str
    speaker: str
    where: str
    offset: float = math.nan
    duration: float = math.nan


Named = tuple[str, dict[str, Any]]
"""Name of an audio file, and the other attributes of its row."""


@dataclass
class LeftOut:
    """What is left out of lists, a line each.

    Attributes:
        skip: Whether an utterance whose file is missing, or outside, is left out instead of refused.
        skipped: Such utterances.
        unlisted: Audio files of LibriSpeech without a transcript.
    """

    skip: bool = False
    skipped: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


def read_list(path: Path, audio: Path | None = None, left_out: LeftOut | None = None) -> list[Row]:
    """Read a list of utterances: a file of JSON lines or a table of Common Voice.

    Args:
        path: The list, ending in .jsonl, .json or .tsv.
        audio: Folder that relative paths count from, and that all lead into; None for that of the list, or its folder
            clips for a table.
        left_out: What is left out is added to it.

    Raises:
        DataError: With file and line: it is damaged, lacks a field, or leads to a file that is missing or outside.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"data.path: must end in {', '.join(SUFFIXES)}, or be a folder. Received: {path}")
    clips = path.parent / "clips"
    root = audio or (clips if path.suffix == ".tsv" and clips.is_dir() else path.parent)
    rows = _existing((_table if path.suffix == ".tsv" else _json_lines)(path), root, left_out or LeftOut())
    if not rows:
        raise DataError(f"{path}: must have a line for each utterance. Received: none.")
    return rows


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield place and text of the lines that are not blank; the first is 1."""
    try:
        content = read_bytes(path, LARGEST)
    except OSError as error:
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.{nearest(path.name, beside)}") from None
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: must be UTF-8. Received: byte {line[error.start]:#x}.") from None
        if text.strip():
            yield f"{path}:{number}", text


def _json_lines(path: Path) -> Iterator[Named]:
    for where, line in _lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: must be one JSON object. Received: {printable(line[:60])!r} ({error}).") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: must be one JSON object. Received: {type(row).__name__}.")
        for key in ("audio_filepath", "text"):
            if key not in row:
                raise DataError(f"{where}: must have the field '{key}'. Received: {', '.join(map(printable, row))}.")
            if not isinstance(row[key], str):
                raise DataError(f"{where}: '{key}' must be text. Received: {json.dumps(row[key])[:60]}.")
        speaker = row.get("speaker", row.get("speaker_id", ""))
        yield (
            row["audio_filepath"],
            {
                "text": row["text"],
                "speaker": "" if speaker is None else str(speaker),
                "offset": _seconds(row, "offset", where),
                "duration": _seconds(row, "duration", where),
                "where": where,
            },
        )


def _seconds(row: dict[str, Any], field: str, where: str) -> float:
    value = row.get(field)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST:
        raise DataError(f"{where}: '{field}' must be seconds. Received: {json.dumps(value)[:60]}.")
    return float(value)


def _table(path: Path) -> Iterator[Named]:
    lines = _lines(path)
    _, header = next(lines, ("", ""))
    columns = header.split("\t")
    for needed in ("path", "sentence"):
        if needed not in columns:
            raise DataError(f"{path}:1: must have the column '{needed}'. Received: {', '.join(map(printable, columns))}.")
    for where, line in lines:
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise DataError(f"{where}: must have {len(columns)} columns. Received: {len(cells)}.")
        row = dict(zip(columns, cells, strict=True))
        yield row["path"], {"text": row["sentence"], "speaker": row.get("client_id", ""), "where": where}


def read_librispeech(folder: Path, left_out: LeftOut | None = None) -> list[Row]:
    """Read the folders SPEAKER/CHAPTER with FLAC or WAV files and *.trans.txt.

    Raises:
        DataError: With file and line, as `read_list`; or there is no such file.
    """
    told = left_out or LeftOut()
    rows: list[Row] = []
    for file in sorted(folder.rglob("*.trans.txt")):
        beside = {path.name for path in file.parent.iterdir() if path.suffix.lower() in (".flac", ".wav")}
        place = file.parent.relative_to(folder)
        named: list[Named] = []
        for where, line in _lines(file):
            name, _, text = line.partition(" ")
            audio = f"{name}{'.flac' if f'{name}.flac' in beside else '.wav'}"
            beside.discard(audio)
            named.append((str(place / audio), {"text": text, "speaker": name.split("-")[0], "where": where}))
        told.unlisted += [str(place / name) for name in sorted(beside)]
        rows += _existing(named, folder, told)
    if not rows:
        raise DataError(
            f"data.path: must have files *.trans.txt (LibriSpeech) or lists ({', '.join(SUFFIXES)}). Received: {folder}"
        )
    return rows


def _existing(named: Iterable[Named], root: Path, left_out: LeftOut) -> list[Row]:
    """Return the rows with their files, without those that are left out."""
    rows = []
    for name, row in named:
        try:
            rows.append(Row(file=_inside(name, root, row["where"]), **row))
        except DataError as error:
            if not left_out.skip:
                raise
            left_out.skipped.append(str(error))
    return rows


def _inside(name: str, root: Path, where: str) -> Path:
    """Return the file of a name, which a link must not lead out of `root` either."""
    path = root / name
    try:
        resolved = path.resolve()
        is_file = resolved.is_file()
    except (OSError, ValueError, RuntimeError):
        raise DataError(f"{where}: no such file. Received: {printable(name[:200])!r}.") from None
    if not resolved.is_relative_to(root.resolve()):
        raise DataError(
            f"{where}: must be inside {root}. Received: {printable(name[:200])!r}. "
            "Name the folder that holds all: data.audio=FOLDER"
        )
    if not name or not is_file:
        raise DataError(
            f"{where}: no such file. Received: {printable(name[:200])!r}. Leave such utterances out: data.on_error=skip"
        )
    return resolved
