"""Damaged and hostile input for every file reader of the package, made by changing files that are right.

    python benchmarks/fuzz.py minutes=60 seed=0 folder=fuzz [readers=journal,image] [rss=4]

A reader must give a value or a `DlframeError`. Anything else is a crash, and so are more than ten seconds for one input, more
than `rss` gigabytes of memory beyond what the imports take, and the death of the process: the input is kept in `folder`, with
the traceback beside it. The readers run in a process of their own, which is started again after a death; where it stood is
in `folder/now`. Ends with the number of inputs of each reader, and status 1 if anything crashed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PATIENCE = 10
"""Seconds for one input. What Python cannot interrupt is ended after twice as many."""

WORDS = rb"""
\ ' " [ ] { } ( ) : , - * &a *a <<: !!set !!binary !!python/name:os.system ? | > --- ... %s ~ ??? null true NaN -Infinity
1e999 -1 0 1:1:1 =cmd ${ ${run_name} ${oc.env:HOME} ${${run_name}} _target_ hydra defaults override ../ /etc/passwd /dev/zero
\u0000 \ud800 name kind values step time uri path format facts shape dtype data_offsets __metadata__ Literal[ tuple[
Annotated[int, lambda: *args =... @models.
"""
TOKENS = [*WORDS.split(), *(bytes([n]) for n in range(33)), b"\xff", b"\xef\xbb\xbf", b"\x1b[2J", b"def f():\n", b"class A:\n"]
TOKENS += [b"9" * 30, b"9" * 5000, b"0x" + b"f" * 5000, b"[" * 3000, b"(" * 300, b'{"a":' * 3000]
NUMBERS = [*range(3), *(2**n - d for n in (7, 8, 15, 16, 31, 32, 63, 64) for d in (0, 1))]
NAMES = ("a", "c", "train", "valid", ".x", "é", "\x1b[2J", "a b", "\udcff", "x.png", "y.png", "Thumbs.db", "n" * 300)
VALUES = [None, True, 0, -1, 1e308, 2**63, 10**400, float("nan"), "", "x", "../x", "\0", "\x1b[2J", "\ud800"]
VALUES += [[], {}, [[]], {"a": 1}, [0] * 2000]


@dataclass
class Reader:
    """One way into the package.

    Attributes:
        file: Name of the file that is read.
        seeds: Contents that are right.
        read: Reads the file.
        around: Other files that `read` needs beside it, left as they are.
        shapes: Changes of the file's own structure, beside those of its bytes.
        allowed: Errors, besides `DlframeError`, that the reader says it raises.
        right: Whether the seeds are files that can be read.
    """

    file: str
    seeds: list[bytes]
    read: Callable[[Path], Any]
    around: dict[str, bytes] = field(default_factory=dict)
    shapes: tuple[Callable[[bytes, random.Random], bytes], ...] = ()
    allowed: tuple[type[Exception], ...] = ()
    right: bool = True


# --- changes


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def remove(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 4, 100)) :]


def insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice(TOKENS) + content[place:]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    token = rng.choice(TOKENS)
    return content[:place] + token + content[place + len(token) :]


def number(content: bytes, rng: random.Random) -> bytes:
    place, form = rng.randrange(len(content) + 1), rng.choice("<>") + rng.choice("BHIQ")
    value = struct.pack(form, rng.choice(NUMBERS) % 256 ** struct.calcsize(form))
    return content[:place] + value + content[place + len(value) :]


def repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.choice((1, 10, 1000))]
    return content[:start] + piece * rng.choice((2, 3, 50)) + content[start:]


def lines(content: bytes, rng: random.Random) -> bytes:
    rows = content.split(b"\n")
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    rows[i] = rng.choice((rows[j], rows[j] + rows[i], b" " * rng.randrange(8) + rows[i].lstrip(), b""))
    return b"\n".join(rows)


def cut_at_thousands(content: bytes, rng: random.Random) -> bytes:
    return content[: 1000 * rng.randrange(len(content) // 1000 + 1)]


BYTES = (flip, cut, remove, insert, overwrite, number, repeat, lines)


def changed_value(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts, however deep, replaced, removed or doubled."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        places = list(value) if isinstance(value, dict) else range(len(value))
        place = rng.choice(list(places))
        value = value.copy()
        match rng.randrange(6):
            case 0:
                del value[place]
            case 1 if isinstance(value, dict):
                value[rng.choice((*map(str, places), "x", "_target_", "\x1b[2J", ""))] = value.pop(place)
            case _:
                value[place] = changed_value(value[place], rng)
        return value
    return rng.choice(VALUES)


def in_json(content: bytes, rng: random.Random) -> bytes:
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(changed_value(json.loads(content), rng)).encode("utf-8", "surrogatepass")
    return content


def in_json_line(content: bytes, rng: random.Random) -> bytes:
    rows = content.split(b"\n")
    i = rng.randrange(len(rows))
    rows[i] = in_json(rows[i], rng)
    return b"\n".join(rows)


def in_header(content: bytes, rng: random.Random) -> bytes:
    """The JSON header of a safetensors file, its length mended."""
    if len(content) < 8 or (size := struct.unpack("<Q", content[:8])[0]) > len(content):
        return content
    header = in_json(content[8 : 8 + size], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def in_facts(content: bytes, rng: random.Random) -> bytes:
    """What dlframe keeps as JSON in the header, its checksum mended: anybody can compute it."""
    from dlframe.storage import checkpoint

    with contextlib.suppress(Exception):
        size = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + size])
        metadata = header["__metadata__"]
        key = rng.choice(("facts", "tree"))
        metadata[key] = in_json(metadata[key].encode(), rng).decode()
        from safetensors.torch import load

        metadata["sha256"] = checkpoint._checksum(load(content), metadata)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + size :]
    return content


def in_yaml(content: bytes, rng: random.Random) -> bytes:
    import yaml

    with contextlib.suppress(Exception):
        return yaml.safe_dump(changed_value(yaml.safe_load(content), rng), allow_unicode=True).encode()
    return content


def in_archive(content: bytes, rng: random.Random) -> bytes:
    """The content of one member of a zip or a tar, or its name."""
    members: list[tuple[str, bytes]] = []
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
        target = io.BytesIO()
        i = rng.randrange(len(members))
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(target, "w", rng.choice((0, 8))) as new:
            for j, (name, data) in enumerate(members):
                new.writestr(
                    rng.choice((name, "../x", "/x", "")) if i == j else name, rng.choice(BYTES)(data, rng) if i == j else data
                )
        return target.getvalue()
    return content


def squeezed(content: bytes, rng: random.Random) -> bytes:
    """Unpacked, changed and packed again."""
    import gzip

    with contextlib.suppress(Exception):
        return gzip.compress(rng.choice(BYTES)(gzip.decompress(content), rng), 1)
    return content


# --- what is right


def bytes_of(write: Callable[[Any], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def sample_run(folder: Path) -> Path:
    """A finished run, tracked: the seeds of most readers."""
    command = [sys.executable, "-m", "dlframe", "model=mlp", "model.width=4", "epochs=2", "trainer.num_threads=1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (run,) = (folder / "runs").glob("mlp-*")
    return run


def images() -> list[bytes]:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (12, 9, 3), dtype=np.uint8)
    tagged = Image.Exif()
    tagged[0x0112] = 6
    picture = Image.fromarray(pixels)
    seeds = [bytes_of(lambda b, f=form: picture.save(b, f)) for form in ("PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG")]
    seeds.append(bytes_of(lambda b: picture.save(b, "JPEG", exif=tagged, progressive=True)))
    seeds.append(bytes_of(lambda b: picture.convert("P").save(b, "PNG", transparency=0)))
    seeds.append(bytes_of(lambda b: Image.fromarray(pixels[..., 0].astype(np.uint16) * 99).save(b, "PNG")))
    seeds.append(bytes_of(lambda b: picture.save(b, "TIFF", compression="tiff_lzw")))
    seeds.append(bytes_of(lambda b: picture.save(b, "GIF", save_all=True, append_images=[picture.rotate(90)])))
    seeds.append(bytes_of(lambda b: picture.convert("CMYK").save(b, "JPEG")))
    return seeds


def photos() -> list[bytes]:
    """A photo in the formats that Pillow writes, of thousands of bytes each."""
    import matplotlib
    from PIL import Image

    source = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    with Image.open(source) as photo:
        small = photo.convert("RGB").resize((128, 150))
    forms = ("AVIF", "BMP", "GIF", "ICO", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
    seeds = [source.read_bytes()]
    for form in forms:
        with contextlib.suppress(OSError, KeyError):  # a Pillow without this format
            seeds.append(bytes_of(lambda b, form=form: small.save(b, form)))
    return seeds


def tar_of(members: dict[str, bytes], mode: str) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    return bytes_of(write)


def zip_of(members: dict[str, bytes]) -> bytes:
    def write(buffer: io.BytesIO) -> None:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return bytes_of(write)


def deb_of(content: bytes) -> bytes:
    parts = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("data.tar.gz", content)):
        parts += f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return parts


def of_speech() -> dict[str, Reader]:
    """Readers of sounds, and of lists of utterances."""
    from dlframe.readers.audio.files import read_audio, read_stretches
    from dlframe.readers.audio.manifests import read_librispeech, read_list
    from dlframe.readers.audio.transcripts import read_alphabet

    files = Path(__file__).parent.parent / "tests" / "readers" / "audio" / "files"
    sounds = [file.read_bytes() for file in sorted(files.glob("*.wav")) if file.name not in ("flac-inside.wav", "pcm24.wav")]
    packed = [(files / name).read_bytes() for name in ("flac-inside.wav", "tone440-44100.flac")]
    clips = {f"{name}.wav": sounds[0] for name in "ab"}
    row = b'{"audio_filepath": "a.wav", "text": "Well, yes.", "duration": 0.1, "offset": 0, "speaker": "s1"}'
    table = b"client_id\tpath\tsentence\ns1\ta.wav\tWell, yes.\ns2\tb.wav\t\xc3\xa9\n"

    def stream(file: Path) -> object:
        with file.open("rb") as source:
            return list(read_stretches(source, 16000, 0.03))

    return {
        "sound": Reader("x.wav", sounds, lambda file: read_audio(file, 16000)),
        "sound, packed": Reader("x.flac", packed, lambda file: read_audio(file, 16000)),
        "sound of a pipe": Reader("x.wav", sounds[:3], stream, right=False),
        "utterances": Reader("x.jsonl", [row + b"\n" + row.replace(b"a.wav", b"b.wav")], read_list, clips, (in_json_line,)),
        "utterances of a table": Reader("x.tsv", [table], read_list, clips, (lines,)),
        "utterances of LibriSpeech": Reader(
            "d/1/1-2.trans.txt",
            [b"1-2-a OPEN THE DOOR\n1-2-b IT RAINS\n"],
            lambda file: read_librispeech(file.parent.parent),
            {f"d/1/1-2-{name}": content for name, content in clips.items()},
            (lines,),
        ),
        "alphabet": Reader("x.txt", ["# letters\n \na\n\\#\né\n".encode()], read_alphabet, {}, (lines,)),
    }


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader of the package, by name."""
    import gzip
    from functools import partial

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from mlflow.exceptions import MlflowException

    import dlframe
    from dlframe.config import load, load_options, load_saved
    from dlframe.data import image_folder as folders
    from dlframe.data.anomaly_series import anomaly_series
    from dlframe.data.detection_folder import read_annotated
    from dlframe.data.digits import digits
    from dlframe.data.image_sets import SETS, mnist, read_cifar, read_cifar_png
    from dlframe.data.interactions import interactions
    from dlframe.data.linemod_occluded import vertices
    from dlframe.data.own_texts import text_folder, text_table
    from dlframe.data.table import table as target_table
    from dlframe.models import backbone
    from dlframe.readers.boxes.annotations import Faults
    from dlframe.readers.boxes.folder import Choices
    from dlframe.readers.decoding import decode_files
    from dlframe.readers.images import Picture, read_image
    from dlframe.readers.interactions import read_interactions
    from dlframe.readers.labels import list_table
    from dlframe.readers.tables.rows import read_rows
    from dlframe.readers.tables.series import read_panel
    from dlframe.readers.tables.table import read_table
    from dlframe.readers.texts.subwords import read_subwords
    from dlframe.readers.texts.tokens import Encoder
    from dlframe.registry import read_source
    from dlframe.runs import journal, run_directory
    from dlframe.runs.exported_model import Predictor, read_spec
    from dlframe.storage import checkpoint, fetch, known
    from dlframe.storage.decoded import contents, decoded
    from dlframe.studies.space import space_of
    from dlframe.studies.study import read_manifest
    from dlframe.tracking.content.artifacts import RejectedRecord, destination
    from dlframe.tracking.content.models import read_signature
    from dlframe.tracking.ui import Options as UiOptions
    from dlframe.tracking.upload_state import UploadState, pending_message

    def shown(file: Path) -> str:
        return file.read_bytes().decode(errors="replace")

    def signature(file: Path) -> object:
        return read_signature(file.read_bytes())

    def location(file: Path) -> None:
        """Wherever a store says that artifacts are, they go to the server or to the folder of runs."""
        with contextlib.suppress(RejectedRecord):
            place = destination(shown(file), "http://127.0.0.1:5000", Path("/runs"))
            assert str(place).startswith(("http://127.0.0.1:5000", "/runs/artifacts/")), place

    def known_list(file: Path) -> None:
        os.environ["XDG_STATE_HOME"] = str(file.parent.parent)
        assert not known.is_known(store="http://never.typed")

    locations = [
        b"mlflow-artifacts:/1/2/artifacts",
        b"http://127.0.0.1:5000/api/x",
        b"file:///runs/artifacts/1",
        b"/runs/artifacts/x",
    ]
    manifest = (
        b'{"fixed": ["model=mlp"], "space": ["x"], "monitor": "val/accuracy", "better": "max", "search": {}, "trials": 3}'
    )
    spaces = [
        b"model=mlp\noptimizer.lr=tag(log,interval(1e-4,1e-1))",
        b"model=mlp,cnn\nmodel.width=range(2,9)\nseed=choice(1,2)",
    ]
    run = sample_run(folder)
    model = {file.name: file.read_bytes() for file in (run / "model").iterdir()}
    config = (run / "config.yaml").read_bytes()
    lines_of_run, dataset = (run / "journal.jsonl").read_bytes(), digits()
    best, state = (
        (run / "checkpoints" / "best.safetensors").read_bytes(),
        max((run / "checkpoints").glob("state-*")).read_bytes(),
    )
    package = Path(dlframe.__file__).parent
    conf = next(place for place in (package / "conf", package.parent.parent / "conf") if place.is_dir())
    yamls = [file.read_bytes() for file in sorted(conf.glob("experiment/*.yaml"))]
    yamls.append(b"defaults:\n  - override /model: mlp\nepochs: 2\nmodel:\n  width: 8\nrun_name: ${model.width}-x\n")
    idx = [
        struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
        for split in (dataset.train, dataset.test)
        for array in (split["image"][:100, 0], split["label"][:100].astype(np.uint8))
    ]
    idx_names = list(SETS["mnist"][1][1].files)
    packed = {f"{name}.gz": gzip.compress(content) for name, content in zip(idx_names, idx, strict=True)}
    rest = dict(zip(idx_names[1:], idx[1:], strict=True))
    batch = b"".join(bytes([label]) + bytes(3072) for label in range(3))
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    cifar = partial(read_cifar, train=tuple(names), test="test_batch.bin", label_bytes=1)
    members = dict.fromkeys([f"c/{name}" for name in (*names, "test_batch.bin")], batch)
    sheet = bytes_of(lambda b: folders_image(np.zeros((96, 32, 3), np.uint8)).save(b, "PNG"))
    sheets = {f"s{i}.png": sheet for i in range(1, 6)}
    labels = {"train.json": b"[0, 1, 2]", "test.json": b"[0]"}
    prices = b"Date,Open,High,Low,Close,Volume\n" + b"".join(b"2000-01-%02d,1,2.5,0.5,1.5,100\n" % day for day in range(1, 29))
    labeled = b"timestamp,value,is_anomaly\n" + b"".join(b"%d,%d.5,%d\n" % (i, i % 7, i in (90, 91)) for i in range(100))
    planned = b"day,sold,holiday\n" + b"".join(b"2000-01-%02d,%s,%d\n" % (i, b"9" * (i < 27), i % 2) for i in range(1, 31))
    accounts = b"paid,city,sum,fraud\n" + b"".join(
        b"2000-01-%02d,%s,%d.5,%d\n" % (i % 28 + 1, b"abc"[i % 3 :][:1] * (i % 7 > 0), i % 9, i % 2) for i in range(60)
    )
    files = {f"x/{label}/{i}.txt": f"a {label} film, number {i}\n".encode() for label in ("good", "bad") for i in range(6)}
    more_prices = b"time;a;b\n" + b"".join(b"%02d.02.2000 10:00;%d.5;1.%03d\n" % (day, day, day) for day in range(1, 29))
    kept_series = {"targets": ["Close"], "features": ["Open"], "time": "Date", "columns": {"Close": {"kind": "number"}}}
    kept_rows = {
        "amount": {"kind": "number", "mean": 1.0, "std": 1.0},
        "zip": {"kind": "identifier", "words": ["007", "08"]},
        "day": {"kind": "date", "format": "month/day/year", "mean": 1.0, "std": 1.0},
    }
    cells = [
        b'%d.5,0%d,%d/14/2024,"a ""b"",\n%d",$%d.00,%s\n' % (i, i % 9, i % 12 + 1, i, i, b"yes" if i % 2 else b"no")
        for i in range(60)
    ]
    names_of_table = b"amount,zip,day,text,price,paid"
    tables = [names_of_table + b"\n" + b"".join(cells), names_of_table + b",\r\n" + b"".join(cells).replace(b"\n", b",\r\n")]
    tables += [b"\xef\xbb\xbf" + tables[0], tables[0].decode().encode("utf-16"), tables[0].replace(b",", b"\t")]
    json_lines = b"".join(b'{"a": %d, "b": "x%d", "c": null, "d": true}\n' % (i, i % 3) for i in range(60))
    parquet = bytes_of(lambda b: pq.write_table(pa.table({"a": [1, None, 3], "b": ["x", "y", None], "c": [0.5, 1.5, 2.5]}), b))
    weights = {"layer.weight": torch.zeros(3, 2), "layer.bias": torch.ones(3)}
    old = bytes_of(lambda b: torch.save(weights, b, _use_new_zipfile_serialization=False))
    toy = {"a/data.bin": b"data" * 100, "b.txt": b"text"}
    source = [file.read_bytes() for file in sorted(package.glob("*/*.py")) if b".register(" in file.read_bytes()]
    np.save(folder / "x.npy", np.arange(6))
    npy = (folder / "x.npy").read_bytes()
    facts = json.dumps({"key": "k", "facts": {"a": [1, 2]}, "arrays": ["x"]}).encode()

    pictures = images()

    def overrides(file: Path) -> object:
        return load(file.read_bytes().decode(errors="replace").split("\n"))

    def options(file: Path) -> object:
        return load_options("ui", UiOptions, file.read_bytes().decode(errors="replace").split("\n"))

    def follow(file: Path) -> object:
        return [journal.read(file.parent), journal.history(file.parent), journal.ended(file.parent)]

    def position(file: Path) -> object:
        return [UploadState.load(file.parent), pending_message(file.parent)]

    def archive(file: Path) -> object:
        return fetch._extract(file, {"data.bin": file.with_name("data.bin")})

    def cache(file: Path) -> object:
        os.environ["DLFRAME_DATA"] = str(file.parent.parent.parent)

        def build(place: Path) -> dict[str, Any]:
            np.save(place / "x.npy", np.arange(6))
            return {"a": [1, 2]}

        return decoded("toy", "k", build, lambda arrays, given: (arrays["x"].sum(), given["a"]))

    def photo(file: Path) -> object:
        return read_image(file, (8, 8), "rgb", file.parent.resolve())

    def unfinished(file: Path) -> object:
        """The notes of a decoding that was killed."""
        hashes = [bytes([i]) * 32 for i in range(3)]
        return decode_files([file] * 3, hashes, (3, 4, 4), lambda _: Picture(np.zeros((3, 4, 4), np.uint8)), file.parent, "x")

    def kept(file: Path) -> object:
        """The hashes of contents that an earlier run has kept."""
        os.environ["DLFRAME_DATA"] = str(cache_folder := file.with_name("cache"))
        root = file.parent.resolve()
        shutil.rmtree(cache_folder, ignore_errors=True)
        (cache_folder / "contents").mkdir(parents=True, mode=0o700)
        shutil.copy(file, cache_folder / "contents" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.npy")
        found = contents(root, [file])
        assert found == [hashlib.sha256(file.read_bytes()).digest()], found
        return found

    def boxes(file: Path) -> object:
        """Annotated images: of the folder "own", or of the file itself where it says where the images are."""
        top = next(folder for folder in file.parents if folder.name == "own")
        with ThreadPoolExecutor(1) as pool:
            found = read_annotated(file if file.suffix in (".json", ".yaml") else top, Choices(), Faults(), pool)
        return [row.image.things for row in found[3]]

    def case(name: str) -> dict[str, bytes]:
        """The files of a case of detection."""
        top = Path(__file__).parent.parent / "tests" / "detection_cases" / name
        return {f"own/{f.relative_to(top).as_posix()}": f.read_bytes() for f in top.rglob("*") if f.is_file()}

    def listing(file: Path) -> object:
        """A folder of images, with other things in it as the bytes say."""
        rng = random.Random(file.read_bytes())
        top = file.with_name("photos")
        shutil.rmtree(top, ignore_errors=True)
        parts = rng.choice(([""], [""], ["train", "test"], ["train", "val", "test"]))
        places = [top / part / label for part in parts for label in ("a", "b")]
        for place in places:
            place.mkdir(parents=True)
            for number in range(rng.randrange(3, 6)):
                (place / f"{number}.png").write_bytes(rng.choice(pictures))
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            place = rng.choice([top, *places]) / rng.choice(NAMES)
            with contextlib.suppress(OSError, UnicodeError):
                match 9 if os.path.lexists(place) else rng.randrange(5):
                    case 0:
                        place.symlink_to(rng.choice(("/usr/share", "..", "a", "/dev/zero", "nowhere", place.name, str(top))))
                    case 1:
                        os.mkfifo(place)
                    case 2:
                        place.mkdir()
                        places.append(place)
                    case 3:
                        place.write_bytes(rng.choice(pictures))
                    case 4:
                        place.write_bytes(b"")
        os.environ["DLFRAME_DATA"] = str(file.with_name("cache"))
        shutil.rmtree(file.with_name("cache"), ignore_errors=True)
        return folders.image_folder(path=str(top), image_size=4, on_error=rng.choice(("raise", "skip")))

    def batches(file: Path) -> object:
        return cifar([file.with_name(name) for name in (*names, "test_batch.bin")])

    def png_sheets(file: Path) -> object:
        return read_cifar_png([file.with_name(name) for name in (*sheets, "s1.png", "train.json", "test.json")])

    def model_of(file: Path) -> object:
        return Predictor(file.parent)

    def stored(file: Path) -> object:
        os.environ["DLFRAME_DATA"] = str(file.with_name("cache"))
        shutil.rmtree(file.with_name("cache"), ignore_errors=True)
        return mnist(path=str(file.parent))

    def subwords(file: Path) -> object:
        own = read_subwords(str(file.parent))
        kept = {"level": "subword", "cut": "end", "length": 9, "column": "text", "files": False, **own.kept}
        return Encoder({"vocabulary": [*own.vocabulary], "text": kept})("wines and \u00e9 cells")

    words = find_spec("tokenizers") is not None
    encoder = {
        "e/config.json": json.dumps(
            {"model_type": "bert", "vocab_size": 6, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
            | {"intermediate_size": 8, "max_position_embeddings": 16}
        ).encode(),
        "e/tokenizer.json": json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFD"}]},
                "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a-z]+|."}, "behavior": "Isolated", "invert": False},
                "post_processor": {"type": "BertProcessing", "sep": ["s", 1], "cls": ["c", 2]},
                "model": {
                    "type": "WordPiece",
                    "unk_token": "u",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100,
                    "vocab": {"u": 0, "s": 1, "c": 2, "wine": 3, "##s": 4, "and": 5},
                },
            }
        ).encode(),
    }
    atomic = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + b"".join(
        f"{i % 3}\t{i}\t{i % 5}\t{100 - i}\n".encode() for i in range(30)
    )
    rated = b"user,item,rating,time\n" + b"".join(
        f"u{i % 3},{i},{i % 5}.5,2020-01-{i % 28 + 1:02}\n".encode() for i in range(30)
    )
    said = b"text,of\n" + b"".join(f"{'good' if i % 2 else 'bad'} film {i},{'ab'[i % 2]}\n".encode() for i in range(30))
    photographs = photos()
    labelled = {f"images/{name}.png": b"" for name in "abcd"}
    tables = [
        b"file,label\na.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\n",
        b"id;cat;dog\na;1;0\nb;0;1\nc;1;0\nd;0;1\n",
        "\ufeffname\tclass\tsplit\na\tch\u00e9ri\ttrain\nb\tx\ttrain\nc\tx\tTest\n".encode(),
    ]
    rows = pa.table({"file": ["a.png", "b.png"], "label": ["cat", "dog"]})
    parquet = bytes_of(lambda b: pq.write_table(rows, b))
    pixels = {
        "pixels": bytes_of(lambda b: np.save(b, np.zeros((3, 3, 4, 4), np.uint8))),
        "hashes": bytes_of(lambda b: np.save(b, np.zeros((3, 32), np.uint8))),
    }
    sparse, texts = case("coco-sparse-category-ids"), case("coco-string-ids")
    voc, yolo, kitti = case("voc-one-based/official"), case("yolo-out-of-range/rounding"), case("kitti-read/training")
    bdd = (
        b'[{"name": "a.jpg", "labels": [{"category": "car", "id": 1, "attributes": {"occluded": true, "truncated": false}, '
        b'"box2d": {"x1": 1, "y1": 2, "x2": 30.5, "y2": 40}}, {"category": "lane", "poly2d": []}]}]'
    )
    mesh = b"ply\nformat ascii 1.0\nelement vertex 2\nend_header\n0 1 2\n3 4 5\n"
    yaml = (in_yaml, insert, lines)
    header = (in_header, in_facts)
    result, told, sent = ((run / name).read_bytes() for name in ("result.json", "data.json", "tracking.json"))
    tars = [tar_of(members, mode) for mode in ("w:gz", "w", "w:xz")]
    archives = [*(tar_of(toy, mode) for mode in ("w:gz", "w", "w:bz2", "w:xz")), zip_of(toy), deb_of(tar_of(toy, "w:gz"))]
    of_mlflow = (OSError, ValueError, KeyError, TypeError, RecursionError, MlflowException)
    return {
        "experiment": Reader("conf/experiment/x.yaml", yamls, lambda _: load(["experiment=x"]), {}, yaml),
        "overrides": Reader(
            "x", [b"model=mlp\nseed=3\noptimizer.lr=0.1", b"augmentation=[flip,crop]\nrun_name=${runs}"], overrides
        ),
        "options": Reader("x", [b"port=5000\nopen_browser=true", b"runs=x"], options),
        "saved config": Reader("config.yaml", [config], load_saved, {}, yaml),
        "checkpoint": Reader("x.safetensors", [best, state], checkpoint.load, {}, header),
        "facts": Reader("x.safetensors", [best, state], checkpoint.read_facts, {}, header),
        "best weights": Reader("x.safetensors", [best, state], checkpoint.weights, {}, header),
        "journal": Reader("journal.jsonl", [lines_of_run], follow, {}, (in_json_line,)),
        "position": Reader("tracking.json", [sent], position, {"journal.jsonl": lines_of_run}, (in_json,)),
        "delivered": Reader("journal.jsonl", [lines_of_run], position, {"tracking.json": b'{"offset": 9}'}, (in_json_line,)),
        "result": Reader("result.json", [result], lambda file: run_directory.read_result(file.parent), {}, (in_json,)),
        "data of a run": Reader(
            "data.json", [told], lambda file: run_directory.check_data(file.parent, dataset), {}, (in_json,)
        ),
        "spec": Reader("spec.json", [model["spec.json"]], read_spec, {}, (in_json,)),
        "signature": Reader("signature.json", [model["signature.json"]], signature, {}, (in_json,), of_mlflow),
        "artifact location": Reader("x", locations, location, right=False),
        "list of what is known": Reader(
            "dlframe/known.jsonl", [b'{"run": "/x"}\n{"store": "http://x"}\n'], known_list, right=False
        ),
        "manifest of a sweep": Reader("x/manifest.json", [manifest], lambda file: read_manifest(file.parent), {}, (in_json,)),
        "space of a sweep": Reader("x", spaces, lambda file: space_of(shown(file).split("\n"))),
        "model's spec": Reader("spec.json", [model["spec.json"]], model_of, model, (in_json,)),
        "model's config": Reader("config.yaml", [model["config.yaml"]], model_of, model, yaml),
        "model's weights": Reader("weights.safetensors", [model["weights.safetensors"]], model_of, model, header),
        "image": Reader("x.png", pictures, lambda file: read_image(file, (4, 4), "rgb", file.parent.resolve())),
        "image folder": Reader("x", [bytes([i]) * 8 for i in range(64)], listing, right=False),
        "photo": Reader("x.jpg", photographs, photo, {}, (cut_at_thousands,)),
        "photo as TGA": Reader("x.tga", photographs, photo, {}, (cut_at_thousands,)),
        "labels": Reader("labels.csv", tables, lambda file: list_table(file.parent, file), labelled, (lines, insert)),
        "labels as Parquet": Reader("labels.parquet", [parquet], lambda file: list_table(file.parent, file), labelled),
        "unfinished decoding": Reader(
            "x.pixels/said.jsonl",
            [b'{"file": 0, "content": "' + b"00" * 32 + b'", "fault": "", "notes": ["transparent"]}\n'],
            unfinished,
            {f"x.pixels/{name}.npy": array for name, array in pixels.items()},
            (in_json_line,),
        ),
        "hashes of contents": Reader("x.npy", [bytes_of(lambda b: np.save(b, np.zeros((3, 64), np.uint8)))], kept),
        "boxes of COCO": Reader(
            "own/annotations.json",
            [sparse["own/annotations.json"], texts["own/annotations.json"]],
            boxes,
            sparse | texts,
            (in_json,),
        ),
        "boxes of BDD": Reader("own/labels.json", [bdd], boxes, {"own/a.jpg": voc["own/images/a.png"]}, (in_json,)),
        "boxes of VOC": Reader("own/annotations/a.xml", [voc["own/annotations/a.xml"]], boxes, voc),
        "boxes of YOLO": Reader("own/labels/train/x.txt", [yolo["own/labels/train/x.txt"]], boxes, yolo, (lines,)),
        "data of YOLO": Reader("own/data.yaml", [yolo["own/data.yaml"]], boxes, yolo, yaml),
        "boxes of KITTI": Reader("own/label_2/000000.txt", [kitti["own/label_2/000000.txt"]], boxes, kitti, (lines,)),
        "mesh": Reader("x.ply", [mesh], vertices, {}, (lines,)),
        "idx": Reader(idx_names[0], [idx[0]], stored, rest),
        "idx labels": Reader(idx_names[1], [idx[1]], stored, {**rest, idx_names[0]: idx[0]}),
        "idx, packed": Reader(f"{idx_names[0]}.gz", [packed[f"{idx_names[0]}.gz"]], stored, packed, (squeezed,)),
        "cifar": Reader(names[0], [batch], batches, dict.fromkeys((*names, "test_batch.bin"), batch)),
        "cifar, packed": Reader("x.tgz", tars[:1], lambda file: cifar([file]), {}, (squeezed,)),
        "cifar sheet": Reader("s1.png", [sheet], png_sheets, {**sheets, **labels}),
        "cifar labels": Reader("train.json", [labels["train.json"]], png_sheets, {**sheets, **labels}, (in_json,)),
        "series": Reader("x.csv", [prices], read_panel),
        "series each": Reader("x.csv", [more_prices], lambda file: read_panel(file, target=["a", "b"])),
        "series, packed": Reader("x.csv.gz", [gzip.compress(prices)], read_panel, {}, (squeezed,)),
        "series of a run": Reader("x.csv", [prices], lambda file: read_panel(file, known=kept_series)),
        "series with labels": Reader("x.csv", [labeled], lambda file: anomaly_series(path=str(file), window=4), {}, (lines,)),
        "series and what is known in advance": Reader(
            "x.csv",
            [planned],
            lambda file: read_panel(file, target=["sold"], known_future=["holiday"], calendar=["month", "weekday"], horizon=2),
            {},
            (lines,),
        ),
        "table": Reader("x.csv", tables, read_table),
        "table with a target": Reader(
            "x.csv", [accounts], lambda file: target_table(path=str(file), target="fraud", time="paid"), {}, (lines,)
        ),
        "table, packed": Reader("x.zip", [zip_of({"x.csv": tables[0]})], read_table, {}, (in_archive, squeezed)),
        "table of lines": Reader("x.jsonl", [json_lines], read_table, {}, (in_json,)),
        "table of columns": Reader("x.parquet", [parquet], read_table),
        "rows of a run": Reader("x.csv", tables[:1], lambda file: read_rows(file, kept_rows)),
        "cache": Reader("decoded/toy/x.npy", [npy], cache, {"decoded/toy/facts.json": facts}),
        "cached facts": Reader("decoded/toy/facts.json", [facts], cache, {"decoded/toy/x.npy": npy}, (in_json,)),
        # `members`, which calls it, tells an OSError.
        "archive": Reader("x.tgz", archives, archive, {}, (in_archive, squeezed), (OSError,)),
        "weights": Reader("x.pt", [bytes_of(partial(torch.save, weights)), old], backbone.read, {}, (in_archive,)),
        "weights as safetensors": Reader("x.safetensors", [best], backbone.read, {}, (in_header,)),
        "interactions": Reader("x.inter", [atomic], read_interactions, {}, (lines,)),
        "interactions of a table": Reader("x.csv", [rated], lambda file: interactions(path=str(file)), {}, (lines,)),
        "texts of a table": Reader(
            "x.csv", [said], lambda file: text_table(path=str(file), text="text", target="of"), {}, (lines,)
        ),
        "texts of files": Reader(
            "x/good/0.txt", [files["x/good/0.txt"]], lambda file: text_folder(path=str(file.parents[1])), files
        ),
        "config of an encoder": Reader("e/config.json", [encoder["e/config.json"]], subwords, encoder, (in_json,), right=words),
        "tokenizer of an encoder": Reader(
            "e/tokenizer.json", [encoder["e/tokenizer.json"]], subwords, encoder, (in_json,), right=words
        ),
        "plugin": Reader("x.py", source, read_source, {}, (insert, lines)),
        **of_speech(),
    }


def folders_image(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


# --- the process that reads


class TooLong(BaseException):
    """Of the alarm; no reader may catch it."""


def alarm(*_: object) -> None:
    raise TooLong


def work(folder: Path, seed: int, deadline: float, only: list[str], gigabytes: float) -> None:
    """Read until the deadline; counts go to `counts.json`, crashes to a folder each."""
    import torch

    from dlframe.registry import plugins
    from dlframe.types import DlframeError

    torch.set_num_threads(1)
    plugins.discover()
    place = folder / f"worker-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    os.chdir(place)
    every = {name: reader for name, reader in readers(place).items() if not only or name in only}
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, alarm)
    trace = (folder / f"death-{seed}.txt").open("w")
    faulthandler.enable(trace)
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    known: set[str] = set()
    spent = dict.fromkeys(every, 0.0)
    """Seconds of each reader: all get the same, so that the quick ones read more."""
    for reader in every.values():  # what is right must be read
        for content in reader.seeds if reader.right else ():
            reader.read(laid_out(place, reader, content))
    warnings.simplefilter("ignore")
    os.dup2(trace.fileno(), 2)  # libraries in C have their say there
    while time.time() < deadline:
        name = min(spent, key=lambda name: spent[name])
        reader, started = every[name], time.perf_counter()
        content = rng.choice(reader.seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            changes = reader.shapes if reader.shapes and rng.random() < 0.5 else BYTES
            content = rng.choice(changes)(content, rng)
        content = content[: 2**21]
        counts[name] += 1
        try:
            file = laid_out(place, reader, content)
            (folder / "now").write_text(f"{name}\n{file}\n")
            faulthandler.dump_traceback_later(2 * PATIENCE, exit=True, file=trace)
            signal.alarm(PATIENCE)
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                reader.read(file)
        except (DlframeError, *reader.allowed) as error:
            refused[name] += 1
            if "\n" in str(error):
                known.add(crash(folder, name, content, error, known))
        except (Exception, TooLong, SystemExit) as error:
            known.add(crash(folder, name, content, error, known))
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            spent[name] += time.perf_counter() - started
        if sum(counts.values()) % 200 == 0:
            (folder / f"counts-{seed}.json").write_text(json.dumps({name: [n, refused[name]] for name, n in counts.items()}))
    (folder / f"counts-{seed}.json").write_text(json.dumps({name: [n, refused[name]] for name, n in counts.items()}))


def laid_out(place: Path, reader: Reader, content: bytes) -> Path:
    """The file with this content, and what belongs beside it, in a folder of the reader's own; a config where one stands."""
    top = place if reader.file.startswith("conf/") else place / f"reader-{id(reader)}"
    for name, data in (*reader.around.items(), (reader.file, content)):
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return top / reader.file


def crash(folder: Path, name: str, content: bytes, error: BaseException, known: set[str]) -> str:
    """Keep the input of a crash, once for each line that it comes from; what identifies it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/dlframe/" in frame.filename]
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    identity = f"{name}: {type(error).__name__} at {where}"
    if identity not in known:
        print(f"CRASH {identity}: {str(error)[:200]!r}", flush=True)
        number = len(list(folder.glob("crash-*.input")))
        (folder / f"crash-{number}.input").write_bytes(content)
        text = "".join(traceback.format_exception(error))
        (folder / f"crash-{number}.txt").write_text(f"{identity}\n{text}", errors="backslashreplace")
    return identity


# --- the process that watches


def main() -> int:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    folder = Path(given.get("folder", "fuzz")).absolute()
    only = given.get("readers", "").split(",") if given.get("readers") else []
    seed, gigabytes = int(given.get("seed", 0)), float(given.get("rss", 4))
    if "deadline" in given:
        work(folder, seed, float(given["deadline"]), only, gigabytes)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + 60 * float(given.get("minutes", 60))
    deaths = 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DLFRAME_PLUGINS": "none"}
    while time.time() < deadline - 1:
        arguments = [*sys.argv[1:], f"folder={folder}", f"seed={seed}", f"deadline={deadline}"]
        done = subprocess.run([sys.executable, __file__, *arguments], env=environment, check=False)
        if done.returncode:
            deaths += 1
            name, file, *_ = ((folder / "now").read_text() if (folder / "now").exists() else "start\n\n").split("\n")
            print(f"DEATH {name}: the process ended with {done.returncode}; see death-{seed}.txt", flush=True)
            if file and Path(file).is_file():
                shutil.copy(file, folder / f"death-{seed}.input")
            if name == "start" or deaths > 50:
                break
        seed += 1000
    total: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for file in folder.glob("counts-*.json"):
        for name, (n, refusals) in json.loads(file.read_text()).items():
            total[name] += n
            errors[name] += refusals
    for name, n in sorted(total.items()):
        print(f"{name:<24}{n:>10,} inputs, {errors[name]:>10,} refused")
    crashes = len(list(folder.glob("crash-*.input")))
    print(f"{sum(total.values()):,} inputs, {crashes} crashes, {deaths} deaths; in {folder}")
    return int(bool(crashes or deaths))


if __name__ == "__main__":
    sys.exit(main())
