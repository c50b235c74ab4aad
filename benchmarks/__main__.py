"""Every figure in turn: `python benchmarks`. Each file says how it measures, and takes options of its own."""

import subprocess
import sys
from pathlib import Path

NAMES = (
    *("parity", "startup", "steps", "cells", "accuracy", "checkpoints", "kills", "racing", "trials", "search", "pictures"),
    *("tables", "panel", "fit", "detection", "detection_twin", "stacked", "sweep_kills", "error_rates", "coverage"),
    *("comparisons", "speech", "memory_bank", "recommendation", "figures"),
)

for name in NAMES:
    print(f"\n{name}", flush=True)
    subprocess.run([sys.executable, Path(__file__).parent / f"{name}.py"], check=True)
