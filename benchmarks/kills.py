"""Kill trainings at random, continue them, and compare: is the end identical to that of a training left alone?

    python benchmarks/kills.py [kills=200] [seed=0] [only=gan]
    python benchmarks/kills.py tracked=5 [seed=0] [only=clock]

One line a kind of training (tests/faults/matrix.py): kills, how many of them it survived, that is, ended identical to the
bit in every state, in the best weights, metrics, predictions and result, and the seconds of a training that is left alone.
With `tracked` one line a way to disturb a training and its upload process (tests/faults/tracked.py), as often each; then all of
it is in MLflow too, once, and finished.
Half of the kills come at a moment of the clock, half at a call that touches the disk. A failure is printed with its kills.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.faults import tracked
from tests.faults.matrix import Cell, Server, Trial, cells, reference, trial

KILLS_A_TRIAL = 3


def tried(server: Server, cell: Cell, home: Path, kills: int, seed: int) -> list[Trial]:
    """Trials of one kind of training with so many kills together."""
    whole = reference(server, cell, home / "reference")
    print(f"{cell.name:<32}", end="", flush=True)
    trials: list[Trial] = []
    while (missing := kills - sum(len(done.kills) for done in trials)) > 0:
        number = len(trials)
        folder = home / str(number)
        chance = random.Random(f"{seed} {cell.name} {number}")
        trials.append(trial(server, cell, whole, folder, chance, min(missing, chance.randint(1, KILLS_A_TRIAL))))
        if not trials[-1].trouble:
            shutil.rmtree(folder, ignore_errors=True)  # the tracker's process may still close its files
    count, lost = (sum(len(t.kills) for t in trials if t.trouble or not only) for only in (False, True))
    print(f"{count:>6} kills{count - lost:>6} survived{whole.seconds:>8.1f} s", flush=True)
    for number, done in enumerate(trials):
        if done.trouble:
            print(f"  trial {number}, killed {', '.join(done.kills)}: {done.trouble}", flush=True)
    if not any(t.trouble for t in trials):
        shutil.rmtree(home, ignore_errors=True)
    return trials


def with_tracker(server: Server, home: Path, times: int, seed: int, only: str) -> int:
    """Disturb trainings and their upload processes; the exit status."""
    alone, lost = reference(server, Cell("", (*tracked.COMMAND, "tracking=none")), home / "alone"), 0
    for kind in (kind for kind in tracked.KINDS if only in kind):
        begun, troubles = time.monotonic(), []
        for number in range(times):
            case = tracked.Case(server, alone, home / f"{kind} {number}", random.Random(f"{seed} {kind} {number}"))
            if trouble := tracked.disturbed(case, kind):
                troubles.append(f"  {case.home}: {trouble}")
        lost += len(troubles)
        print(f"{kind:<40}{times:>4} times{times - len(troubles):>4} survived{time.monotonic() - begun:>8.1f} s", flush=True)
        print(*troubles, sep="\n", end="\n" if troubles else "", flush=True)
    return int(lost > 0)


def main() -> int:
    options = {"kills": "200", "seed": "0", "only": "", "tracked": "0"} | dict(text.split("=", 1) for text in sys.argv[1:])
    if times := int(options["tracked"]):
        with Server() as server:
            home = Path(tempfile.mkdtemp(prefix="kills-"))
            return with_tracker(server, home, times, int(options["seed"]), options["only"])
    chosen = [cell for cell in cells() if options["only"] in cell.name]
    share, rest = divmod(int(options["kills"]), len(chosen))
    begun, home = time.monotonic(), Path(tempfile.mkdtemp(prefix="kills-"))
    trials: list[Trial] = []
    with Server() as server:
        for number, cell in enumerate(chosen):
            trials += tried(server, cell, home / str(number), share + (number < rest), int(options["seed"]))
    count, lost = (sum(len(t.kills) for t in trials if t.trouble or not only) for only in (False, True))
    print(f"{len(chosen)} kinds of training, {count} kills, {count - lost} survived, {time.monotonic() - begun:.0f} s")
    print(f"kept {home}" if lost else "", end="\n" if lost else "")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
