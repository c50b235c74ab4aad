"""The batch that fits, found by trying with real allocations under a real limit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.conftest import dlframe

from dlframe.config import load
from dlframe.engine import memory
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.runs.journal import read

HUGE = 2**44
"""Bytes that no machine has."""


def test_sizes_are_halved_until_one_fits():
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        torch.empty(HUGE if size > 20 else 1, dtype=torch.uint8)

    assert memory.largest(attempt, 100) == (12, [100, 50, 25])
    assert tried == [100, 50, 25, 12]


def test_nothing_may_fit():
    assert memory.largest(lambda size: torch.empty(HUGE, dtype=torch.uint8), 3) == (0, [3, 1])


def test_another_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(ValueError, match="something else"):
        memory.largest(lambda size: (_ for _ in ()).throw(ValueError("something else")), 3)


def test_more_than_is_free_is_not_granted_while_trying():
    """Linux grants memory that is not there, and kills a process that then uses it."""
    free = memory._free()
    assert memory.largest(lambda size: torch.empty(int(free * size / 4), dtype=torch.uint8), 4) == (2, [4])
    assert len(torch.empty(free, dtype=torch.uint8)) == free


@pytest.mark.usefixtures("no_figures")
def test_auto_keeps_the_optimizer_step_as_large(tmp_path, capsys):
    whole = run(load(["model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path}", "batch_size=128"]))
    found = run(
        load(["model=mlp", "epochs=1", "tracking=none", f"runs={tmp_path}", "batch_size=auto", "accumulate_grad_batches=2"])
    )
    assert "batch_size=auto: batch_size=128 accumulate_grad_batches=1\n" in capsys.readouterr().err
    assert found.metrics == whole.metrics == evaluate_run(found.folder).metrics
    (note,) = [record for record in read(found.folder) if record["kind"] == "note" and record["name"] == "batch_size"]
    assert note["value"] == 128


LIMITED = """
import resource, sys
import psutil
import dlframe.engine.fit
from dlframe.cli import main
limit = psutil.Process().memory_info().vms + {megabytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main({arguments}))
"""


def limited(tmp_path, megabytes: int, *arguments: str) -> subprocess.CompletedProcess:
    """A training that gets so much memory beyond what imports take."""
    code = LIMITED.format(megabytes=megabytes, arguments=[*arguments, "tracking=none", "epochs=1"])
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_batch_that_is_too_large_is_told_with_one_that_fits(tmp_path):
    wide = ["model=mlp", "model.width=300000", "model.depth=1", "trainer.limit_batches=1"]
    done = limited(tmp_path, 2300, *wide, "batch_size=1024")
    assert done.returncode == 2, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: out of memory with batch_size=1024 ("), error
    command = error.partition("optimizer step: ")[2]
    size, accumulate = (int(part.partition("=")[2]) for part in command.split())
    assert 1 <= size < 1024
    assert size * accumulate == 1024
    assert limited(tmp_path, 2300, *wide, *command.split()).returncode == 0
    auto = limited(tmp_path, 2300, *wide, "batch_size=auto", "accumulate_grad_batches=16")
    assert f"batch_size=auto: batch_size={size} accumulate_grad_batches={accumulate}; 1024" in auto.stderr


def test_auto_is_for_one_process(tmp_path):
    done = dlframe("batch_size=auto", "trainer=ddp", cwd=tmp_path)
    said = "error: batch_size: auto takes one process, as several would have to agree. Try: batch_size=64\n"
    assert (done.returncode, done.stderr) == (2, said)
