"""Opening of table files: format by content, bounded unpacking, encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute

from dlframe.types import DataError, opened, printable

pc: Any = pyarrow.compute
"""Functions of Arrow, which are made when it is imported, so that no checker of types knows them."""

LARGEST = 2**32
"""Maximum bytes of an unpacked or converted file, which is held in memory."""

GROWTH = 200
"""Maximum factor by which a packed file may grow beyond `ALWAYS`; text grows tenfold, a bomb a thousandfold."""

ALWAYS = 2**26
"""Bytes that a packed file may unpack to in any case."""

BLOCK = 2**20

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
"""Byte order marks and their encodings."""

LINES = (".jsonl", ".ndjson", ".json")

FOREIGN = (
    (b"\xd0\xcf\x11\xe0", "an old Office document, such as .xls"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ARROW1", "an Arrow file"),
    (b"Obj\x01", "an Avro file"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"ORC", "an ORC file"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
)
"""First bytes of files that are no tables here, and their names."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says about a table; see the options of `data=table`."""

    separator: str = "auto"
    encoding: str = "auto"
    skip: int = 0
    header: int | None = None
    decimal: str = "."
    thousands: str = ""
    missing: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A table file, as it is or unpacked and in UTF-8.

    Attributes:
        path: The file.
        form: Its format.
        data: Content in memory, if it is not that of the file.
        start: Bytes of a byte order mark.
        notes: What was assumed.
    """

    path: Path
    form: Literal["delimited", "lines", "parquet"]
    data: bytes | None = None
    start: int = 0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Path for messages."""
        return printable(str(self.path).encode(errors="backslashreplace").decode())

    def stream(self, offset: int = 0) -> BinaryIO:
        """Return the content from a byte on."""
        file = io.BytesIO(self.data) if self.data is not None else opened(self.path)
        file.seek(offset)
        return file

    def arrow(self, offset: int = 0) -> Any:
        """Return the content from a byte on, for Arrow."""
        if self.data is not None:
            return pa.BufferReader(pa.py_buffer(self.data).slice(offset))
        return pa.PythonFile(self.stream(offset), "r")


def open_table(path: Path, encoding: str = "auto") -> Source:
    """Open a CSV, TSV, JSON lines or Parquet file, or one in a .gz or .zip file.

    The first bytes decide the format; the suffix tells JSON lines from CSV.

    Raises:
        DataError: The file is missing, of another format, damaged, or unpacks to too much.
    """
    where = printable(str(path).encode(errors="backslashreplace").decode())
    try:
        with opened(path) as file:
            head = file.read(64)
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from None
    suffixes = [part.lower() for part in path.suffixes[-2:]]
    data: bytes | None = None
    notes: list[str] = []
    try:
        if head[:4] == b"PK\x03\x04":
            data, member = _member(path, where)
            suffixes = [Path(member).suffix.lower()]
            notes.append(f"read {printable(member)} of the archive")
        elif head[:2] == b"\x1f\x8b":
            with opened(path) as raw, gzip.open(raw) as packed:
                data = _unpacked(packed, where, path.stat().st_size)  # type: ignore[arg-type]
            suffixes = suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes
        elif suffixes[-1:] in ([".gz"], [".zip"]):
            raise DataError(f"{where}: is not a {suffixes[-1][1:]} file, though its name ends so")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{where}: cannot be unpacked: {error}") from None
    head = head if data is None else data[:64]
    for magic, what in FOREIGN:
        if head.lstrip()[: len(magic)].lower() == magic.lower():
            raise DataError(f"{where}: is {what}. Save the table as CSV or Parquet")
    if head[:4] == b"PAR1":
        return Source(path, "parquet", data, notes=tuple(notes))
    if ".parquet" in suffixes[-1:]:
        raise DataError(f"{where}: is not a Parquet file, though its name ends so")
    if not head:
        raise DataError(f"{where}: is empty: it has no header and no rows")
    lines = suffixes[-1:] and suffixes[-1] in LINES
    source = Source(path, "lines" if lines else "delimited", data, notes=tuple(notes))
    return _in_utf8(source, head, encoding)


def _member(path: Path, where: str) -> tuple[bytes, str]:
    """Return content and name of the only file of an archive."""
    with opened(path) as raw, zipfile.ZipFile(raw) as archive:
        if len(archive.filelist) > 10_000:
            raise DataError(f"{where}: must hold one table. Received: {len(archive.filelist):,} files")
        files = [
            info
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/") and Path(info.filename).name[:1] != "."
        ]
        names = [info.filename for info in files]
        if "[Content_Types].xml" in names:
            raise DataError(f"{where}: is a workbook or another Office document. Save the sheet as CSV")
        if len(files) != 1:
            raise DataError(
                f"{where}: must hold one table. Received: {len(files)} files ({printable(', '.join(names[:3]))}). Unpack it"
            )
        if files[0].flag_bits & 1:
            raise DataError(f"{where}: is encrypted. Unpack it")
        with archive.open(files[0]) as member:
            return _unpacked(member, where, path.stat().st_size), names[0]


def _unpacked(stream: IO[bytes], where: str, packed: int) -> bytes:
    """Read a packed stream of a bounded size."""
    limit = min(LARGEST, max(ALWAYS, GROWTH * packed))
    whole = io.BytesIO()
    while chunk := stream.read(BLOCK):
        if whole.tell() + len(chunk) > limit:
            raise DataError(
                f"{where}: unpacks to more than {limit / 1e6:,.0f} MB, {limit // max(packed, 1):,} times its size. If "
                "you trust it, unpack it"
            )
        whole.write(chunk)
    return whole.getvalue()


def _in_utf8(source: Source, head: bytes, encoding: str) -> Source:
    """Return the source in UTF-8, from what a byte order mark or the option says."""
    mark, said = next(((mark, name) for mark, name in MARKS if head.startswith(mark)), (b"", ""))
    if encoding != "auto":
        try:
            b"a".decode(encoding)
        except UnicodeError:
            pass  # of two bytes per character
        except LookupError:
            raise DataError(f"data.encoding: must be a text encoding, such as cp1252. Received: '{encoding}'") from None
    name = said if encoding == "auto" else codecs.lookup(encoding).name
    notes = source.notes + ((f"encoding {said}, as its byte order mark says",) if said.startswith("utf-16") else ())
    if name in ("", "utf-8", "utf-8-sig"):
        return Source(source.path, source.form, source.data, len(mark) if said == "utf-8" else 0, notes)
    told = "data.encoding says" if encoding != "auto" else "its byte order mark says"
    decoder = codecs.getincrementaldecoder(name)()
    whole, line = io.BytesIO(), 1
    size = len(source.data) if source.data is not None else source.path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{source.name}: must have at most {LARGEST / 1e9:.3g} GB to be converted from {name} to UTF-8")
    with source.stream(len(mark) if said in (name, name + "-le") else 0) as file:
        while True:
            chunk = file.read(BLOCK)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                place = getattr(error, "start", 0)
                line += (getattr(error, "object", b"")[:place]).count(b"\n")
                raise DataError(f"{source.name}, line {line}: is not {name}, as {told}: {_reason(error)}") from None
            whole.write(text.encode("utf-8", "surrogatepass"))
            if not chunk:
                break
            line += text.count("\n")
    return Source(source.path, source.form, whole.getvalue(), 0, notes)


def _reason(error: UnicodeError) -> str:
    return getattr(error, "reason", "") or str(error)
