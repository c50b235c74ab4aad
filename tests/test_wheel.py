"""The wheel is the whole of it: a folder with nothing but the wheel's content, and the first command runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow  # pip fetches the build backend


def test_the_wheel_runs_in_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert "dlframe/conf/config.yaml" in names
    assert "dlframe/py.typed" in names
    assert "dlframe/contracts/test_models.py" in names
    assert not [name for name in names if name.startswith(("tests/", "plugins/", "benchmarks/"))]
    command = [sys.executable, "-m", "dlframe", "model=mlp", "epochs=1", "tracking=none"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [sys.executable, "-c", "import dlframe; print(dlframe.__file__)"],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
