"""The files of docker/, as the tests read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"


class Instruction(NamedTuple):
    """An instruction of a Dockerfile: `RUN` and the rest of its line."""

    name: str
    value: str


def stages(dockerfile: str) -> dict[str, tuple[str, list[Instruction]]]:
    """Stage -> what it builds on, and its instructions."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE))
    found: dict[str, tuple[str, list[Instruction]]] = {}
    instructions: list[Instruction] = []
    for line in filter(str.strip, joined.splitlines()):
        name, value = line.strip().split(None, 1)
        if name == "FROM":
            base, _, stage = value.split()
            instructions = []
            found[stage] = base, instructions
        else:
            instructions.append(Instruction(name, " ".join(value.split())))
    return found


STAGES = stages((DOCKER / "Dockerfile").read_text(encoding="utf-8"))
TARGETS = ("cpu", "cuda", "tracking")


def lineage(stage: str) -> list[Instruction]:
    """All instructions of a stage, those of the stages that it builds on first."""
    if stage not in STAGES:
        return []
    base, instructions = STAGES[stage]
    return [*lineage(base), *instructions]


def compose(*names: str) -> dict[str, Any]:
    """The content of a compose file."""
    return yaml.safe_load((DOCKER / (names[0] if names else "compose.yaml")).read_text(encoding="utf-8"))


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of the test environment; the test is skipped where it has no build for this machine."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not path:
        pytest.skip(f"no {name}: pip install -c constraints.txt -e '.[test]'")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False)
