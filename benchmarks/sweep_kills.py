"""Kill sweeps and grids at random, continue them, and compare: is any trial lost, run twice, or another one?

    python benchmarks/sweep_kills.py [kills=100] [seed=0] [only=race]

One line a kind of study (tests/studies/kills.py): kills, how many of them it survived, and the seconds of a study that is left
alone. The driver, a worker, or all of them are killed at a moment of the clock, and the same command is typed again. Survived
is a study with all its trials, each told once, those that had ended before the kill unchanged, each run with one sequence of
epochs and one end and, where the order of the trials' ends cannot matter, with the choices and values of the one left alone.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.faults.matrix import Server
from tests.studies.kills import KINDS, Kind, Outcome, killed, reference

KILLS_A_STUDY = 3


def tried(server: Server, kind: Kind, home: Path, kills: int, seed: int) -> list[Outcome]:
    """Studies of one kind with so many kills together."""
    whole = reference(server, kind, home / "reference")
    print(f"{kind.name:<22}", end="", flush=True)
    outcomes: list[Outcome] = []
    while (missing := kills - sum(len(done.kills) for done in outcomes)) > 0:
        number = len(outcomes)
        chance = random.Random(f"{seed} {kind.name} {number}")
        folder = home / str(number)
        outcomes.append(killed(server, kind, whole, folder, chance, min(missing, chance.randint(1, KILLS_A_STUDY))))
        if not outcomes[-1].trouble:
            shutil.rmtree(folder)
    count, lost = (sum(len(o.kills) for o in outcomes if o.trouble or not only) for only in (False, True))
    print(f"{count:>6} kills{count - lost:>6} survived{whole.seconds:>8.1f} s", flush=True)
    for number, outcome in enumerate(outcomes):
        if outcome.trouble:
            print(f"  study {number}, killed: {', '.join(outcome.kills)}: {outcome.trouble}", flush=True)
    return outcomes


def main() -> int:
    options = {"kills": "100", "seed": "0", "only": ""} | dict(text.split("=", 1) for text in sys.argv[1:])
    chosen = [kind for kind in KINDS if options["only"] in kind.name]
    share, rest = divmod(int(options["kills"]), len(chosen))
    begun, home = time.monotonic(), Path(tempfile.mkdtemp(prefix="sweep-kills-"))
    outcomes: list[Outcome] = []
    with Server() as server:
        for number, kind in enumerate(chosen):
            if share + (number < rest):
                outcomes += tried(server, kind, home / str(number), share + (number < rest), int(options["seed"]))
    count, lost = (sum(len(o.kills) for o in outcomes if o.trouble or not only) for only in (False, True))
    print(f"{len(chosen)} kinds of study, {count} kills, {count - lost} survived, {time.monotonic() - begun:.0f} s")
    if lost:
        print(f"kept {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
