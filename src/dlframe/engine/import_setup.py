"""Import torch and Lightning as this project wants them.

Without what torchmetrics only looks for and imports if it is there: SciPy's signal tools, pyplot, transformers. And with
OpenMP threads that soon sleep when they have to wait. They spin for long by default, each on a processor of its own, which on
a busy machine keeps the very thread away that they wait for: a small network then trains several times slower.
"""

from __future__ import annotations

import os
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


# Read by the GNU OpenMP library when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

with hidden("scipy", "matplotlib", "transformers", "librosa", "onnxruntime", "pesq", "pystoi", "gammatone"):
    import lightning.pytorch  # noqa: F401
