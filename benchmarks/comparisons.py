"""Seconds and memory of `compare` for many finished runs: by default 6 models, 10 seeds and 100,000 test examples.

    python benchmarks/comparisons.py [models=6] [seeds=10] [examples=100000]

One run of the MLP is trained; its folder is copied for each model and seed with other predictions, right in 80 to 90 % of the
examples, and the numbers that follow from them. "first line" is the time from the start of the process to the first line.
Targets: 10 seconds and 2 GiB for the default, and a first line within 2 seconds for 60 runs of the digits (examples=0 keeps the
run's own predictions).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas

from dlframe.cli import main as dlframe
from dlframe.runs.environment import python


def make(home: Path, models: int, seeds: int, examples: int) -> list[str]:
    """Write the folders of runs, and return them."""
    os.chdir(home)
    with open(os.devnull, "w") as null:
        stdout, sys.stdout = sys.stdout, null
        assert dlframe(["model=mlp", "epochs=1", "tracking=none", "figures=none", "run_name=template"]) == 0
        sys.stdout = stdout
    (template,) = Path("runs").glob("template-*")
    result, config = json.loads((template / "result.json").read_text()), (template / "config.yaml").read_text()
    random, folders = np.random.default_rng(0), []
    classes = np.array([str(i) for i in range(10)])
    target = classes[random.integers(0, 10, examples or 1)]
    hard = random.normal(size=examples or 1)
    for model in range(models):
        for seed in range(seeds):
            folder = Path("runs", f"m{model}-{seed}")
            shutil.copytree(template, folder, ignore=shutil.ignore_patterns("checkpoints", "model"))
            text = config.replace("\nseed: 0", f"\nseed: {seed}") if "\nseed: 0" in config else f"seed: {seed}\n" + config[8:]
            (folder / "config.yaml").write_text(text.replace("  width: 256", f"  width: {64 + model}"))
            if examples:
                wrong = 0.7 * hard + 0.7 * random.normal(size=examples) > 1.0 + 0.05 * model
                prediction = np.where(wrong, classes[random.integers(0, 10, examples)], target)
                table = {"id": np.arange(examples), "target": target, "prediction": prediction, "baseline": "0"}
                pandas.DataFrame(table).to_parquet(folder / "predictions.parquet")
                own = {**result, "metrics": {"accuracy": float((prediction == target).mean())}}
                own["baseline"] = {"majority class": {"accuracy": float((target == "0").mean())}}
                (folder / "result.json").write_text(json.dumps(own))
            folders.append(str(folder))
    return folders


def main() -> None:
    options = {"models": "6", "seeds": "10", "examples": "100000"} | dict(text.split("=", 1) for text in sys.argv[1:])
    models, seeds, examples = (int(options[name]) for name in ("models", "seeds", "examples"))
    with tempfile.TemporaryDirectory() as home:
        folders = make(Path(home), models, seeds, examples)
        start = time.monotonic()
        command = python("-m", "dlframe", "compare", *folders)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        lines, memory = [], 0.0
        for line in process.stdout:
            lines.append((time.monotonic() - start, line))
            # Not that of getrusage, which is at least this process's own.
            status = Path(f"/proc/{process.pid}/status").read_text() if os.path.exists("/proc") else ""
            memory = max([memory, *(int(kib) / 2**20 for kib in re.findall(r"VmHWM:\s+(\d+)", status))])
        if process.wait():
            sys.exit("error: compare has failed")
        seconds = time.monotonic() - start
        told = f"{models} models, {seeds} seeds, {examples or 'own':,} examples" if examples else f"{len(folders)} runs"
        print(f"{told}: first line {lines[0][0]:.1f} s, all {seconds:.1f} s, {memory:.2f} GiB")
        os.chdir("/")


if __name__ == "__main__":
    main()
