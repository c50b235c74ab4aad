"""What is hidden while Lightning is imported stays out of the way, installed or not; memory that a step frees is kept."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["transformers", "librosa"])
def test_a_large_package_that_is_installed_is_not_imported(tmp_path, name):
    """It would need SciPy, which is hidden; and import for seconds."""
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("import scipy.signal\nprint('imported')\n")
    information = tmp_path / f"{name}-99.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
    code = f"import dlframe.engine.internals; print('slim'); import {name}"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "slim\nimported\n"


FAULTS = """
import resource
from dlframe.engine import internals
import torch

def step():
    blocks = [torch.empty(20 * 2**20, dtype=torch.uint8).fill_(1) for _ in range(4)]

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(internals.keep_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is the one that is told")
def test_what_a_step_frees_is_kept_for_the_next_one():
    def kept(**variables: str) -> list[str]:
        environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "0", **variables}  # pages of one size, to be counted
        done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    is_told, faults = kept()
    pages = 10 * 4 * 20 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert is_told == "True"
    assert int(faults) < pages / 4, "of all pages, each of which would be filled anew in each step"
    assert kept(GLIBC_TUNABLES="")[0] == "False", "the user has a say"
