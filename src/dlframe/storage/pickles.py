"""Inspection of pickled tensors before torch reads them.

`torch.load(weights_only=True)` runs no code, but a file of 400 bytes can have it allocate gigabytes or hash for hours. The
operations of the pickle are followed here without their effect: only what `torch.save` writes for tensors in dicts, lists
and tuples is allowed.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, cast

LARGEST = 2**24
"""Maximum bytes of the pickles, which hold names and shapes; the numbers are stored after them."""

DEEPEST = 100
"""Maximum depth of tuples in tuples."""

BYTES = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1}
STORAGES = {f"torch {name}Storage": size for name, size in BYTES.items()}
"""Storage type -> bytes of an element."""

ORDERED, TENSOR, PARAMETER = "collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
"""Operations that push their argument, a number or a text."""

TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Refused(Exception):
    """Pickle that `torch.save` does not write for tensors."""


class Global(str):
    """Name of a function or class, "module name"."""


class Storage(int):
    """Number of elements of a storage."""


class Opaque:
    """Object whose content does not matter: a dict, a list, a tensor."""


def check(path: Path) -> None:
    """Check all pickles of a file of `torch.save`, in its present or its old format.

    Raises:
        Refused: It holds another operation, another object than tensors, or more elements than numbers are stored.
        Exception: It is damaged; any error of the readers.
    """
    with path.open("rb") as file:
        start = file.read(LARGEST)
    if start.startswith(b"PK"):  # not is_zipfile: an archive may be at the end of a pickle
        with zipfile.ZipFile(path) as archive:
            records = [(PurePosixPath(info.filename), info) for info in archive.infolist()]
            sizes = {place.name: info.file_size for place, info in records if place.parent.name == "data"}
            for place, info in records:
                if place.name == "data.pkl":
                    if info.file_size > LARGEST:
                        raise Refused(f"its pickle has more than {LARGEST:,} bytes")
                    _follow(io.BytesIO(archive.read(info)), lambda key, size: size <= sizes.get(key, 0))
        return
    room = path.stat().st_size
    known: dict[str, int] = {}

    def fits(key: str, size: int) -> bool:
        known[key] = max(size, known.get(key, 0))
        return sum(known.values()) <= room

    stream = io.BytesIO(start)
    for _ in range(5):  # a magic number, a version, facts of the machine, the objects, the keys of the storages
        _follow(stream, fits)


def _follow(stream: io.BytesIO, fits: Callable[[str, int], bool]) -> None:
    """Follow the operations of one pickle; `fits` says whether a storage of this key has so many bytes."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped(count: int | None = None) -> list[Any]:
        start = marks.pop() if count is None else len(stack) - count
        if start < (marks[-1] if marks else 0):
            raise Refused("its stack is damaged")
        items = stack[start:]
        del stack[start:]
        return items

    for operation, value, _ in pickletools.genops(stream):
        name, argument = operation.name, cast(Any, value)
        if name in VALUES:
            if isinstance(argument, int) and argument.bit_length() > 80:
                raise Refused("it has a number of more than 80 bits")
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append(Opaque())
        elif name in TUPLES or name == "TUPLE":
            stack.append(_checked(tuple(popped(TUPLES.get(name)))))
        elif name == "GLOBAL":
            if argument not in (*STORAGES, ORDERED, TENSOR, PARAMETER):
                raise Refused(f"it names '{argument}'")
            stack.append(Global(argument))
        elif name == "BINPERSID":
            stack.append(_storage(popped(1)[0], fits))
        elif name == "REDUCE":
            stack.append(_called(*popped(2)))
        elif name in ("SETITEM", "SETITEMS"):
            items = popped(2 if name == "SETITEM" else None)
            if not all(isinstance(key, (str, int)) for key in items[::2]):
                raise Refused("its keys must be names or numbers")
        elif name in ("APPEND", "APPENDS", "BUILD"):
            popped(None if name == "APPENDS" else 1)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("PROTO", "STOP"):
            raise Refused(f"it has the operation {name}")


class _Nested(tuple):
    """Tuple with its depth."""

    depth: int


def _checked(items: tuple[Any, ...]) -> _Nested:
    nested = _Nested(items)
    nested.depth = 1 + max((item.depth for item in items if isinstance(item, _Nested)), default=0)
    if nested.depth > DEEPEST:
        raise Refused(f"it has tuples {DEEPEST} deep")
    return nested


def _storage(entry: Any, fits: Callable[[str, int], bool]) -> Storage:
    """Return the storage of a persistent id, ("storage", type, key, device, elements, and None in the old format)."""
    match entry:
        case ("storage", Global() as kind, str(key), str(), int(count)) | (
            "storage",
            Global() as kind,
            str(key),
            str(),
            int(count),
            None,
        ) if kind in STORAGES and count >= 0:
            if not fits(key, count * STORAGES[kind]):
                raise Refused("a storage has fewer bytes than its pickle says")
            return Storage(count)
    raise Refused("it refers to another object than a storage")


def _called(function: Any, arguments: Any) -> Opaque:
    """Return the object of a call, which must be one of an empty OrderedDict, a tensor or a parameter."""
    match function, arguments:
        case Global(), () if function == ORDERED:
            return Opaque()
        case Global(), (Storage() as count, int(offset), tuple(shape), tuple(strides), bool(), *_) if function == TENSOR:
            sides = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides))
            if sides and (math.prod(shape) == 0 or math.prod(shape) <= count):
                last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
                if math.prod(shape) == 0 or last < count:
                    return Opaque()
            raise Refused("a tensor has more elements than its storage")
        case Global(), (Opaque(), bool(), Opaque()) if function == PARAMETER:
            return Opaque()
    raise Refused("it calls a function with other arguments than torch.save")
