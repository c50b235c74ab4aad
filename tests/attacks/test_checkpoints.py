"""Checkpoints and weights of a stranger: pickles in every dress, and safetensors that lie about themselves."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.attacks.conftest import BOMB, Bomb, shown

from dlframe.cli import main
from dlframe.models.backbone import read
from dlframe.storage import checkpoint
from dlframe.types import CheckpointError

PICKLE = "is a pickle, which could run code."
DAMAGED = "the checkpoint is damaged"


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


PICKLES = {
    **{f"protocol_{n}": pickle.dumps(Bomb(), n) for n in range(6)},
    "torch": saved({"state_dict": {"a": torch.zeros(2)}, "bomb": Bomb()}),
    "torch_of_old": saved(Bomb(), _use_new_zipfile_serialization=False),
    "torch_script": zipped({"archive/data.pkl": BOMB, "archive/constants.pkl": BOMB, "archive/version": b"3\n"}),
    "npz": zipped({"a.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + BOMB}),
    "tar": tarred("pickle", BOMB),
}


def lying(header: dict[str, Any] | bytes, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A safetensors file, whatever its header says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", (len(text) if length is None else length) & (2**64 - 1)) + text + data


FACTS = {"__metadata__": {"format": "dlframe 1", "facts": '{"model": "mlp"}'}}


def of(dtype: str = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def with_facts(facts: str, **more: str) -> bytes:
    return lying({"__metadata__": {"format": "dlframe 1", "facts": facts, **more}, "a": of()})


def with_tree(tree: Any, facts: str = '{"model": "mlp"}') -> bytes:
    """One whose checksum holds: it is no signature, and anybody can compute it."""
    text = tree if isinstance(tree, str) else json.dumps(tree)
    metadata = {"format": "dlframe 1", "facts": facts, "tree": text}
    checksum = checkpoint._checksum({"a": torch.zeros(4)}, metadata)
    return with_facts(facts, tree=text, sha256=checksum)


DEEP = "[" * 100_000 + "]" * 100_000

LIES = {
    "empty": b"",
    "one_byte": b"\0",
    "no_header": bytes(8),
    "header_of_2_to_63": lying(FACTS, length=2**63),
    "header_of_all_bits": lying(FACTS, length=-1),
    "header_of_a_gigabyte": lying(FACTS, length=2**30),
    "header_past_the_end": lying(FACTS, length=100_000),
    "header_cut": lying(FACTS, length=20),
    "header_of_nothing": lying(b"{}"),
    "header_that_is_a_list": lying(b"[]"),
    "header_that_is_text": lying(b'"x"'),
    "header_of_latin": lying(b'{"\xff": 1}'),
    "header_with_nul": lying(b'{"a\0": 1}'),
    "header_that_is_deep": lying(b'{"a": ' + DEEP.encode() + b"}"),
    "header_with_nan": lying(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 16]}}'),
    "offset_below_zero": lying({**FACTS, "a": of(offsets=(-16, 0))}),
    "offsets_reversed": lying({**FACTS, "a": of(offsets=(16, 0))}),
    "offsets_past_the_end": lying({**FACTS, "a": of(shape=(400,), offsets=(0, 1600))}),
    "offsets_of_all_bits": lying({**FACTS, "a": of(offsets=(0, 2**64 - 1))}),
    "offsets_that_overlap": lying({**FACTS, "a": of(), "b": of()}),
    "offsets_with_a_hole": lying({**FACTS, "a": of(shape=(1,), offsets=(12, 16))}),
    "offsets_too_many": lying({**FACTS, "a": of(offsets=(0, 8, 16))}),
    "shape_that_overflows": lying({**FACTS, "a": of(shape=(2**62, 2**62))}),
    "shape_that_wraps_to_16_bytes": lying({**FACTS, "a": of(shape=(2**62 + 1, 4))}),
    "shape_of_an_exabyte": lying({**FACTS, "a": of(shape=(2**58,))}),
    "shape_below_zero": lying({**FACTS, "a": of(shape=(-4,))}),
    "shape_of_fractions": lying({**FACTS, "a": of(shape=(4.5,))}),
    "shape_of_100000_sides": lying({**FACTS, "a": of(shape=(1,) * 100_000)}),
    "type_unknown": lying({**FACTS, "a": of(dtype="OBJECT")}),
    "type_too_small": lying({**FACTS, "a": of(dtype="U8")}),
    "a_name_twice": lying(b'{"__metadata__": {"format": "dlframe 1"}, "a": %s, "a": %s}' % ((json.dumps(of()).encode(),) * 2)),
    "metadata_of_numbers": lying({"__metadata__": {"format": 1}, "a": of()}),
    "metadata_that_is_a_list": lying({"__metadata__": [], "a": of()}),
    "format_of_another": lying({"__metadata__": {"format": "pt"}, "a": of()}),
    "format_missing": lying({"a": of()}),
    "facts_missing": lying({"__metadata__": {"format": "dlframe 1"}, "a": of()}),
    "facts_no_json": with_facts("{"),
    "facts_a_list": with_facts("[1, 2]"),
    "facts_null": with_facts("null"),
    "facts_deep": with_facts(DEEP),
    "facts_of_a_huge_number": with_facts('{"model": ' + "9" * 5000 + "}"),
    "facts_of_no_text": with_facts('{"model": {"a": []}}'),
    "facts_that_paint": with_facts('{"model": "\\u001b]0;owned\\u0007"}'),
    "a_name_that_paints": lying({**FACTS, "\x1b]0;owned\x07": of()}),
    "no_checksum": with_facts('{"model": "mlp"}', tree="{}"),
    "wrong_checksum": with_facts('{"model": "mlp"}', tree="{}", sha256="0" * 64),
    "tree_no_json": with_tree("{"),
    "tree_a_number": with_tree(1),
    "tree_a_list": with_tree([1, 2]),
    "tree_a_tensor": with_tree({"~": "tensor", "name": "a"}),
    "tree_deep": with_tree(DEEP),
    "tree_of_an_unknown_kind": with_tree({"model": {"~": "object", "name": "os.system"}}),
    "tree_without_the_tensor": with_tree({"model": {"~": "tensor", "name": "b"}}),
    "tree_of_numbers": with_tree({"model.layers.0.bias": 1}),
    "tree_of_huge_strides": with_tree({"a": {"~": "tensor", "name": "a", "strides": [2**60]}}),
    "tree_of_strides_below_zero": with_tree({"a": {"~": "tensor", "name": "a", "strides": [-1]}}),
    "tree_of_too_many_strides": with_tree({"a": {"~": "tensor", "name": "a", "strides": [1, 1]}}),
    "tree_of_a_state": with_tree({"a": 1}, '{"model": "mlp", "kind": "state"}'),
    "tree_of_a_name_that_paints": with_tree({"\x1b]0;owned\x07": {"~": "tensor", "name": "a"}}),
}


@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("place", ["checkpoint", "best"])
def test_a_pickle_for_a_checkpoint(place: str, kind: str, refused: Callable[..., str], stranger: Path) -> None:
    file = stranger / "checkpoints" / "best.safetensors" if place == "best" else Path("x.ckpt")
    file.write_bytes(PICKLES[kind])
    said = refused("test", str(stranger), *(["checkpoint=x.ckpt"] if place == "checkpoint" else []))
    assert said.startswith((f"{file}: {PICKLE}", f"{file}: {DAMAGED}"))


@pytest.mark.parametrize("kind", LIES)
def test_a_checkpoint_that_lies(kind: str, refused: Callable[..., str], stranger: Path) -> None:
    file = stranger / "checkpoints" / "best.safetensors"
    file.write_bytes(LIES[kind])
    assert refused("test", str(stranger)).startswith(f"{file}: ")


@pytest.mark.parametrize("size", range(0, 1200, 60))
def test_a_checkpoint_that_is_cut(size: int, refused: Callable[..., str], stranger: Path) -> None:
    file = stranger / "checkpoints" / "best.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert refused("test", str(stranger)).startswith(f"{file}: {DAMAGED}")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_checkpoint_that_is_no_file(kind: str, refused: Callable[..., str], stranger: Path) -> None:
    file = stranger / "checkpoints" / "best.safetensors"
    file.unlink()
    {"pipe": lambda: os.mkfifo(file), "device": lambda: file.symlink_to("/dev/zero"), "folder": file.mkdir}[kind]()
    assert refused("test", str(stranger)).startswith(f"{file}: ")


class Reduces:
    """Rebuilds to what the functions that `weights_only` allows give."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.parts


WEIGHTS = {
    **{f"{name}.pt": (f"{name}.pt", content) for name, content in PICKLES.items()},
    **{
        f"{name}.safetensors": (f"{name}.safetensors", LIES[name])
        for name in ("empty", "header_of_all_bits", "shape_that_wraps_to_16_bytes")
    },
    "pickle.safetensors": ("x.safetensors", BOMB),
    "torch.safetensors": ("x.safetensors", PICKLES["torch"]),
    "script.pth": ("x.pth", PICKLES["torch_script"]),
    "bomb.pt": ("x.pt", zipped({"archive/data.pkl": bytes(10**8)}, zipfile.ZIP_DEFLATED)),
    "sparse.pt": ("x.pt", saved({"a": torch.eye(3).to_sparse()})),
    "complex.pt": ("x.pt", saved({"a": torch.zeros(3, dtype=torch.complex64)})),
    "meta.pt": ("x.pt", saved({"a": torch.empty(3, device="meta")})),
    "list.pt": ("x.pt", saved([torch.zeros(2)])),
    "numbers.pt": ("x.pt", saved({"a": 1})),
    "empty.pt": ("x.pt", b""),
    "system.pt": ("x.pt", saved({"a": Reduces(os.system, "touch ran")})),
    "eval.pt": ("x.pt", saved({"a": Reduces(eval, "open('ran', 'w')")})),
    "numpy.pt": ("x.pt", saved({"a": np.zeros(3)})),
    "name.py": ("x.py", b"open('ran', 'w')"),
    "name.pkl": ("x.pkl", BOMB),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name: str, guarded: Callable[..., Any], victim: Path) -> None:
    file, content = WEIGHTS[name]
    Path(file).write_bytes(content)
    with guarded(), pytest.raises(CheckpointError) as caught:
        read(Path(file))
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_on_the_command_line(guarded: Callable[..., Any], victim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.pt").write_bytes(PICKLES["torch"])
    with guarded():
        assert main(["model=backbone", "model.weights=x.pt", "model.image_size=32", "tracking=none"]) == 2
    said = "error: x.pt: is damaged, or a pickle of other objects than tensors, which could run code.\n"
    assert shown(capsys.readouterr().err) == said
