"""What a logged model says it needs can be installed by who is to serve it."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from dlframe import __version__
from dlframe.tracking.content import models
from dlframe.tracking.content.models import environment, wheel


def test_the_wheel_is_this_installation_with_its_configs(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(wheel())) as archive:
        archive.extractall(tmp_path)
    found = next(iter(importlib.metadata.distributions(path=[str(tmp_path)])))
    assert (found.name, found.version) == ("dlframe", __version__)
    assert all(file.locate().stat().st_size == file.size for file in found.files or () if file.size is not None)
    code = "import dlframe.config as c; print(c.__file__, c.load(['model=mlp']).values['model']['name'])"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [f"{tmp_path}/dlframe/config/__init__.py", "mlp"], done.stderr


@pytest.mark.parametrize("published", [False, True])
def test_every_requirement_is_where_pip_looks(published: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_is_published", lambda: published)
    files = environment.__wrapped__()
    own, *others = files["requirements.txt"].decode().splitlines()
    assert own == f"dlframe=={__version__}" if published else own in files
    versions = {line.partition("==")[0]: line.partition("==")[2] for line in others}
    assert {name: importlib.metadata.version(name).partition("+")[0] for name in ("mlflow", "torch")} == versions
    for name in ("conda.yaml", "python_env.yaml"):  # of the two, MLflow reads the one of its environment manager
        assert "-r requirements.txt" in json.dumps(yaml.safe_load(files[name]))


def test_the_wheel_is_the_same_each_time() -> None:
    assert wheel() == wheel()
