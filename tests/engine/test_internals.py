"""What is hidden while Lightning is imported stays out of the way, installed or not, and can be imported afterwards."""

from __future__ import annotations

import os
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
