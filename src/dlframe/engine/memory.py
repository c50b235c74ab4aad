"""Memory: running out of it, the batch that fits, found by trying, and activations that are computed again."""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from dlframe.types import ConfigError

try:
    import resource
except ImportError:  # Windows
    resource = None

SAID = re.compile(
    "out of memory|not enough memory|can't allocate memory|[Cc]annot allocate memory|bad_alloc|size calculation overflow"
)
"""What torch's allocators say."""

SHARE = 0.9
"""Of the memory that is free, so much may be tried."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory is used up."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(SAID.search(str(error))))


def largest(attempt: Callable[[int], None], size: int) -> tuple[int, list[int]]:
    """The largest of `size`, its half, its quarter ... with which `attempt` does not run out of memory.

    Returns:
        That size, 0 if not even 1 fits; and those that were too large.
    """
    too_large = []
    while size:
        if _fits(attempt, size):
            break
        too_large.append(size)
        size //= 2
    return size, too_large


def _fits(attempt: Callable[[int], None], size: int) -> bool:
    try:
        with _kept_from_the_rest():
            attempt(size)
    except Exception as error:
        if not ran_out(error):
            raise
        return False
    finally:
        release()
    return True


def release() -> None:
    """Give back what nothing holds any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _kept_from_the_rest() -> Iterator[None]:
    """Have an allocation fail where Linux would grant it and then kill a process for it."""
    if not resource or not Path("/proc/self/statm").exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + int(SHARE * _free())
    limits = [limit, *(old for old in (soft, hard) if old != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _free() -> int:
    """Bytes that this machine, or the container that this is, has left."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(free, 0)


RECOMPUTES = "gradient_checkpointing"


def recompute_blocks(model: nn.Module, name: str) -> int:
    """Have each block of a model compute its activations again in the backward pass, instead of keeping them.

    The gradients are the same (Chen et al. 2016, arXiv 1604.06174). A block is a module of several ones that stands beside
    others of its class in a list (`nn.Sequential`, `nn.ModuleList`).

    Returns:
        Number of blocks.

    Raises:
        ConfigError: The model has none.
    """
    blocks = [*_blocks(model)]
    if not blocks:
        raise ConfigError(
            f"{RECOMPUTES}: model={name} has no list of blocks, whose activations could be computed again.", RECOMPUTES
        )
    for block in blocks:
        block.forward = functools.partial(_forward, block, block.forward)
    return len(blocks)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost blocks."""
    for child in module.children():
        alike = sum(type(other) is type(child) for other in module.children())
        is_listed = isinstance(module, (nn.Sequential, nn.ModuleList)) and alike > 1
        if is_listed and next(child.children(), None) is not None:
            yield child
        else:
            yield from _blocks(child)


def _forward(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)

    def contexts() -> tuple[Any, Any]:
        return contextlib.nullcontext(), _keeping_buffers(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextlib.contextmanager
def _keeping_buffers(block: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are: the first pass has counted the batch."""
    own = [(module, dict(module._buffers)) for module in block.modules() if module._buffers]
    for module, buffers in own:
        module._buffers.update({name: None if tensor is None else tensor.clone() for name, tensor in buffers.items()})
    try:
        yield
    finally:
        for module, buffers in own:
            module._buffers.update(buffers)
