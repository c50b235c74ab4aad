"""Checkpoints are data: one safetensors file, tensors and JSON, whole or not there. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlframe.types import CheckpointError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "dlframe 1"
"""Written into every checkpoint, so that a file of another kind is told apart."""


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write under a temporary name, synced, then renamed: a reader finds the old file or the new one, never a part.

    Raises:
        CheckpointError: The file cannot be written; the one before it is whole.
    """
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Clones, since safetensors takes neither strided views nor tensors that share memory.
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(copies, temporary, {"format": FORMAT, "facts": json.dumps(facts)})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(f"{path}: the checkpoint cannot be written: {error.strerror}") from None


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that were saved in a checkpoint. No tensor is read, and torch is not needed.

    Raises:
        CheckpointError: The file is missing, damaged, a pickle, or no checkpoint of dlframe.
    """
    metadata, _ = _read(path, "numpy", lambda file: None)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is no checkpoint of dlframe. Received format: {metadata.get('format')!r}.")
    try:
        return dict(json.loads(metadata["facts"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged: its facts cannot be read: {error}") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the facts that were saved with them.

    Raises:
        CheckpointError: As `read_facts`.
    """
    facts = read_facts(path)
    # safetensors' own handle has no iterator.
    _, tensors = _read(path, "pt", lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return tensors, facts


def _read(path: Path, framework: str, content: Callable[[Any], Any]) -> tuple[dict[str, str], Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            head = file.read(9)
        # A safetensors file starts with the length of its header, which may be any eight bytes, and then the header's "{".
        if head[8:] != b"{" and head.startswith((b"PK", b"\x80")):
            raise CheckpointError(f"{path}: is a pickle, which could run code, and is refused. Checkpoints are safetensors.")
        with safe_open(path, framework=framework) as file:
            return file.metadata() or {}, content(file)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path}: must be a file. Received: a folder.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged or truncated: {str(error).splitlines()[0]}") from None


def restore(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put `tensors` into `module`, all of them.

    Raises:
        CheckpointError: They are another model's: names the first tensor that differs.
    """
    own = module.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        side = "lacks" if name in own else "has an unknown"
        hint = nearest(name, (tensors if name in own else own).keys())
        raise CheckpointError(f"{path}: is of another model: it {side} tensor '{name}'.{hint}")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: is of another model: '{name}' must have shape {tuple(own[name].shape)}. "
                f"Received: {tuple(tensor.shape)}."
            )
    module.load_state_dict(tensors)
