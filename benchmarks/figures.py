"""The figures of the documentation, made anew and compared with those in docs/.

    python benchmarks/figures.py [--write] [NAME ...]

Each is a figure of a run of the command that its page quotes. A difference is the root mean square over pixels, of 255. Other
roundings of the same training (two threads, another memory order, double precision) gave up to 14 here, another seed, schedule
or model from 38 on. `--write` puts the new ones into docs/.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.testing.compare import calculate_rms
from PIL import Image

from dlframe.config import load
from dlframe.jobs.train import run

DOCS = Path(__file__).parent.parent / "docs"
FIGURES = {
    "learning_curve": ["model=cnn"],
    "forecast": ["task=forecasting", "data=co2", "model=nbeats", "task.output=quantile"],
}
"""Name of a figure, and of its file in docs/ -> what is typed."""

TOLERANCE = 25.0
"""Difference up to which figures are the same."""


def drawn(name: str, runs: Path, *options: str) -> Path:
    """Train the run of a figure, in a folder of runs; return the file of the figure."""
    result = run(load([*FIGURES[name], "tracking=none", f"runs={runs}", *options]))
    assert result.folder
    return result.folder / "figures" / f"{name}.png"


def difference(one: Path, other: Path) -> float:
    """Return the root mean square difference of two pictures, of 255; that of black and white where their sizes differ."""
    pictures = []
    for file in (one, other):
        with Image.open(file) as opened:
            pictures.append(np.asarray(opened.convert("RGB")))
    return float(calculate_rms(*pictures)) if pictures[0].shape == pictures[1].shape else 255.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *FIGURES], help="figures; all without a name")
    parser.add_argument("--write", action="store_true", help="replace the figures in docs/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        for name in options.names or FIGURES:
            made, kept = drawn(name, Path(runs)), DOCS / f"{name}.png"
            found = f"{difference(made, kept):.2f} of 255 from what was there" if kept.is_file() else "new"
            print(f"{kept.name}: {found}", flush=True)
            if options.write:
                shutil.copyfile(made, kept)


if __name__ == "__main__":
    main()
