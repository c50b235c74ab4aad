"""Start-up times, whole processes, interleaved: A B C A B C ...

    python benchmarks/startup.py [--rounds 5]

"first step" ends when the first optimizer step of `python -m dlframe model=cnn` has been taken; its CPU time is that of the
training process alone, while its wall time also suffers from the tracker's process beside it. What it is compared with:
importing torch and making the first optimizer, which imports another half of torch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STOP = '''
import os
from dlframe.registry import callbacks
from lightning.pytorch import Callback

@callbacks.register("stop_at_first_step")
class Stop(Callback):
    """Ends the process when the first step is taken."""

    def __init__(self) -> None:
        pass

    def on_train_batch_end(self, *arguments) -> None:
        os._exit(0)
'''
TORCH = "import torch; torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])"
COMMANDS = {
    "import torch, first optimizer": ["-c", TORCH],
    "import lightning.pytorch": ["-c", "import lightning.pytorch"],
    "--help": ["-m", "dlframe", "--help"],
    "train --help": ["-m", "dlframe", "train", "--help"],
    "list": ["-m", "dlframe", "list"],
    "config error: modle=cnn": ["-m", "dlframe", "modle=cnn"],
    "config error: model.width=-1": ["-m", "dlframe", "model.width=-1"],
    "first step": ["-m", "dlframe", "model=cnn", "plugin_paths=[stop.py]", "callback=[stop_at_first_step]"],
    "first step, no tracker": [
        *("-m", "dlframe", "model=cnn", "tracking=none"),
        *("plugin_paths=[stop.py]", "callback=[stop_at_first_step]"),
    ],
}


def timed(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "stop.py").write_text(STOP)
        for number in range(rounds + 1):
            for name, arguments in COMMANDS.items():
                measurement = timed(arguments, folder)
                if number:  # the first round fills the caches
                    times[name].append(measurement)
                elif name.startswith("first step"):
                    time.sleep(15)  # the tracker makes its database
    torch = times["import torch, first optimizer"]
    print(f"{'':<32}{'wall s':>8}{'CPU s':>8}{'/ torch':>9}")
    for name, rows in times.items():
        wall, cpu = (statistics.median(row[i] for row in rows) for i in (0, 1))
        ratio = statistics.median(own[1] / its[1] for own, its in zip(rows, torch, strict=True))
        print(f"{name:<32}{wall:>8.2f}{cpu:>8.2f}{ratio:>9.2f}")


if __name__ == "__main__":
    main()
