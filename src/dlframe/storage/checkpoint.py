"""Checkpoints as safetensors with JSON, without pickle.

A checkpoint holds a tree of dicts, lists and tuples. Its leaves are those of `state_dict` methods: tensors, their dtypes,
NumPy arrays, numbers, strings, booleans and None. Tensors keep their memory order, since a fused optimizer step reads its
state in the order of the weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dlframe.types import CheckpointError, nearest, opened

if TYPE_CHECKING:
    from io import BufferedReader

    from torch import Tensor, nn

FORMAT = "dlframe 1"
"""Format of a checkpoint, stored in its metadata."""

LONGEST = 2**24
"""Maximum characters of the tree: its objects take more memory than its text."""

KIND = "~"
"""Key of a JSON object that represents another type."""


def save(path: Path, tree: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Save a checkpoint atomically: write a temporary file, sync and rename it.

    Args:
        path: Checkpoint file.
        tree: Content; see the docstring of this module. A tensor's name is its path, "optimizers/0/exp_avg".
        facts: Metadata, readable without the tensors, as JSON.

    Returns:
        Checksum of the content.

    Raises:
        CheckpointError: The file cannot be written (an earlier one is kept), or the tree holds another type.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    metadata = {"format": FORMAT, "facts": json.dumps(facts), "tree": json.dumps(_packed(tree, "", tensors))}
    metadata["sha256"] = _checksum(tensors, metadata)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata)
        os.chmod(temporary, path.parent.stat().st_mode & 0o666)  # safetensors makes files readable by the owner only
        for part, target in ((temporary, path), (path.parent, None)):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if target:
                os.replace(part, target)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        cause = _as_system_error(error)
        raise CheckpointError(f"{path}: cannot write the checkpoint: {cause.strerror or cause}") from cause
    return metadata["sha256"]


def _as_system_error(error: Exception) -> OSError:
    """Return the error of the system that safetensors reports as text."""
    if isinstance(error, OSError):
        return error
    said = re.search(r"I/O error: (.*) \(os error (\d+)\)", str(error))
    return OSError(int(said[2]), said[1]) if said else OSError(str(error))


def check_types(tree: Mapping[str, Any]) -> None:
    """Raise `CheckpointError`, which names the first leaf that a checkpoint cannot hold."""
    _packed(tree, "", None)


def sha256(path: Path, inside: Path | None = None) -> str:
    """Return the SHA-256 of the file of a checkpoint.

    Raises:
        OSError: It cannot be read, or it leads out of the folder `inside`.
    """
    with opened(path, inside) as file:
        return hashlib.file_digest(cast("BufferedReader", file), "sha256").hexdigest()


def read_facts(path: Path, inside: Path | None = None) -> dict[str, Any]:
    """Read the metadata of a checkpoint, without tensors and torch.

    Args:
        path: The checkpoint.
        inside: The run that it belongs to, see `opened`.

    Raises:
        CheckpointError: The file is missing, damaged, a pickle, or not a checkpoint of dlframe.
    """
    return _facts(path, _read(path, inside, "numpy", lambda file: None)[0])


def load(path: Path, inside: Path | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load the tree of a checkpoint, with tensors on the CPU, and its metadata.

    Args:
        path: The checkpoint.
        inside: The run that it belongs to, see `opened`.

    Raises:
        CheckpointError: As `read_facts`, or the checksum does not match.
    """
    # safetensors' own handle has no iterator.
    metadata, tensors = _read(path, inside, "pt", lambda file: {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    facts = _facts(path, metadata)
    if metadata.get("sha256") != _checksum(tensors, metadata):
        raise CheckpointError(f"{path}: the checkpoint is damaged: the checksum does not match.")
    try:
        if len(metadata["tree"]) > LONGEST:
            raise ValueError(f"its tree has more than {LONGEST:,} characters")
        if not isinstance(tree := _unpacked(json.loads(metadata["tree"]), tensors), dict):
            raise ValueError("the tree is not a dict")
        return tree, facts
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged: {error}") from None


def weights(path: Path) -> dict[str, Tensor]:
    """Load the weights of a checkpoint, best or latest; where weights are averaged, the averages, which are what is scored.

    Raises:
        CheckpointError: As `load`.
    """
    tree, facts = load(path)
    found = tree.get("task") if facts.get("kind") == "state" else tree
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: the checkpoint is damaged: weights are missing.")
    callbacks = tree.get("callbacks") if facts.get("kind") == "state" else None
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        averages = state.get("averages") if isinstance(state, dict) and state.get("steps") else None
        for name, average in averages.items() if isinstance(averages, dict) else ():
            if (own := name.removeprefix("task.")) in found:
                found[own] = average.to(found[own].dtype)
    return found


def restore(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load all `tensors` into `module`.

    Raises:
        CheckpointError: The tensors do not match the model; names the first difference.
    """
    check(module, tensors, path)
    module.load_state_dict(tensors)


def check(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Compare names, shapes and types of `tensors` with those of `module`, which may be on the device "meta".

    Floats of 16 and 32 bits are of one type: weights of either load into a model of the other.

    Raises:
        CheckpointError: The tensors do not match the model; names the first difference.
    """
    own = module.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        side = "missing" if name in own else "unexpected"
        hint = nearest(name, (tensors if name in own else own).keys())
        raise CheckpointError(f"{path}: does not match the model: {side} tensor '{name}'.{hint}")
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] == "_extra_state":
            continue  # its size depends on training
        shapes = [tuple(x.shape) if hasattr(x, "shape") else type(x).__name__ for x in (own[name], tensor)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path}: does not match the model: '{name}' must have shape {shapes[0]}. Received: {shapes[1]}."
            )
        kinds = [getattr(x, "dtype", None) for x in (own[name], tensor)]
        if kinds[0] != kinds[1] and not all(kind and kind.is_floating_point and kind.itemsize <= 4 for kind in kinds):
            raise CheckpointError(f"{path}: does not match the model: '{name}' must be {kinds[0]}. Received: {kinds[1]}.")


def _packed(node: Any, name: str, tensors: dict[str, Tensor] | None) -> Any:
    """Return `node` as JSON and move its tensors to `tensors`, by path; with None, only check the types."""
    import numpy as np
    import torch

    if node is None or isinstance(node, (bool, int, str)):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {KIND: "float", "value": str(node)}
    if isinstance(node, torch.Tensor):
        if tensors is None:
            return None
        tensor = node.detach().cpu()
        strides = torch.empty_like(tensor, device="meta").stride()
        # A copy: safetensors rejects tensors with shared memory.
        tensors[name] = tensor.clone(memory_format=torch.contiguous_format)
        return {KIND: "tensor", "name": name} | ({} if tensor.is_contiguous() else {"strides": strides})
    if isinstance(node, (np.ndarray, np.generic)) and node.dtype.kind in "biuf":
        if tensors is not None:
            tensors[name] = torch.from_numpy(np.array(node))
        return {KIND: "array", "name": name}
    if isinstance(node, torch.dtype):
        return {KIND: "dtype", "name": str(node).removeprefix("torch.")}
    if isinstance(node, Mapping):
        items = [(key, _packed(value, f"{name}/{key}" if name else str(key), tensors)) for key, value in node.items()]
        if all(isinstance(key, str) for key, _ in items) and KIND not in node:
            return dict(items)
        if all(isinstance(key, (str, int)) for key, _ in items):
            return {KIND: "dict", "items": items}
    if isinstance(node, (list, tuple)):
        items = [_packed(item, f"{name}/{i}", tensors) for i, item in enumerate(node)]
        return items if isinstance(node, list) else {KIND: "tuple", "items": items}
    raise CheckpointError(
        f"{name}: a checkpoint must hold tensors, arrays, numbers, strings, None, and lists, tuples and dicts of these. "
        f"Received: {type(node).__name__}."
    )


def _unpacked(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Invert `_packed`. Each tensor is taken once, so that the tree needs at most twice the memory of the file."""
    import torch

    if isinstance(node, list):
        return [_unpacked(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    match node.get(KIND):
        case None:
            return {key: _unpacked(value, tensors) for key, value in node.items()}
        case "tensor":
            tensor = tensors.pop(node["name"])
            if "strides" not in node:
                return tensor
            if sum((side - 1) * stride for side, stride in zip(tensor.shape, node["strides"], strict=True)) >= tensor.numel():
                raise ValueError(f"the strides of '{node['name']}' need more memory than its elements")
            return torch.empty_strided(tensor.shape, node["strides"], dtype=tensor.dtype).copy_(tensor)
        case "array":
            return tensors.pop(node["name"]).numpy()
        case "tuple":
            return tuple(_unpacked(item, tensors) for item in node["items"])
        case "dict":
            return {key: _unpacked(value, tensors) for key, value in node["items"]}
        case "float":
            return float(node["value"])
        case "dtype" if isinstance(dtype := getattr(torch, node["name"], None), torch.dtype):
            return dtype
    raise ValueError(f"unknown kind {node[KIND]!r}")


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of metadata and all tensors, with names and types."""
    import torch

    digest = hashlib.sha256("\0".join(metadata.get(key, "") for key in ("format", "facts", "tree")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a checkpoint of dlframe. Received format: {metadata.get('format')!r}.")
    try:
        return dict(json.loads(metadata["facts"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged: cannot read its metadata: {error}") from None


def _read(path: Path, inside: Path | None, framework: str, content: Callable[[Any], Any]) -> tuple[dict[str, str], Any]:
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise CheckpointError(f"{path}: must be a file. Received: a folder.")
    try:
        with opened(path, inside) as file:
            head = file.read(9)
        # A safetensors file starts with eight bytes, the length of its header, and "{".
        if head[8:] != b"{" and head.startswith((b"PK", b"\x80")):
            raise CheckpointError(f"{path}: is a pickle, which could run code. Checkpoints must be safetensors.")
        with safe_open(path, framework=framework) as file:
            return file.metadata() or {}, content(file)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint.") from None
    except (SafetensorError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise CheckpointError(str(error)) from None
        raise CheckpointError(f"{path}: the checkpoint is damaged or truncated: {str(error).splitlines()[0]}") from None
