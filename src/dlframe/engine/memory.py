"""Running out of memory, and the batch that fits, found by trying."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

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
