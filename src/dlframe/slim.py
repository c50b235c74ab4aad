"""Import Lightning without what it only looks for: torchmetrics imports SciPy's signal tools and pyplot if they are there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError

from lightning_utilities.core import imports as probes


@contextmanager
def hidden(*packages: str) -> Iterator[None]:
    """Make packages look as if they were not installed, unless they are imported already."""
    packages = tuple(name for name in packages if name not in sys.modules)
    version = probes._version

    def absent(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return version(name)

    sys.modules.update(dict.fromkeys(packages))  # type: ignore[arg-type]  # None: an import fails
    probes._version = absent
    try:
        yield
    finally:
        probes._version = version
        for name in packages:
            del sys.modules[name]


with hidden("scipy", "matplotlib"):
    import lightning.pytorch  # noqa: F401
