"""Every RUN line of the Dockerfile, executed as a script, for each target; and what the image would then start.

There is no Docker engine here. What stands in for it:

- The stages of a target share one new folder as their root; absolute paths of the Dockerfile are paths below it. So
  `COPY --from` finds its source in place, and a file that one stage should not see is seen all the same.
- The base image is the Python that runs the tests, and its system the one of this machine.
- `useradd` works on account files in that root, where the tests run as root; otherwise it makes the home folder only. Owners
  are not set, and the command of the image is started by the account of the tests.
- TORCH_INDEX is pip's own index: it has the CUDA build, so the target cpu is larger here than it would be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docker.files import ROOT, STAGES, TARGETS, Instruction

pytestmark = pytest.mark.slow

FOLDERS = ("/opt/dlframe", "/build", "/wheel", "/home/dlframe", "/work", "/usr/local/bin/with-secrets")
"""What the Dockerfile writes."""

USERADD = """#!/bin/sh
if [ "$(id -u)" = 0 ]; then exec {useradd} --prefix "$ROOT" "$@"; fi
mkdir -p "$ROOT/home/dlframe"
"""
INSTALL = """#!/bin/sh
for word; do shift; case "$word" in --owner=*) ;; *) set -- "$@" "$word" ;; esac; done
exec {install} "$@"
"""


def order(stage: str) -> list[str]:
    """The stages that a target needs, each after those that it uses."""
    found: list[str] = []
    base, instructions = STAGES[stage]
    for other in [base, *re.findall(r"--from=(\S+)", " ".join(i.value for i in instructions))]:
        if other in STAGES:
            found += [name for name in order(other) if name not in found]
    return [*found, stage]


class Build:
    """A build of one target in a folder."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root = root
        self.arguments = arguments
        self.executed: list[str] = []
        self.results: dict[str, list[str]] = {}
        stubs = root / "stubs"
        stubs.mkdir(parents=True)
        for name, text in {"useradd": USERADD, "install": INSTALL}.items():
            path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"])) or name
            (stubs / name).write_text(text.format(**{name: path}))
            (stubs / name).chmod(0o755)
        (stubs / "python").symlink_to(sys.executable)
        (root / "etc").mkdir()
        for name in ("passwd", "group", "shadow", "gshadow"):
            (root / "etc" / name).touch()
        (root / "usr/local/bin").mkdir(parents=True)
        path = os.pathsep.join([str(root / "usr/local/bin"), str(stubs), os.environ["PATH"]])
        kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.endswith(("_proxy", "_PROXY"))}
        self.first = {**kept, "PATH": path, "HOME": str(root / "home/dlframe"), "ROOT": str(root)}

    def here(self, text: str) -> str:
        for folder in FOLDERS:
            text = re.sub(rf"(?<![\w/.]){re.escape(folder)}(?![\w-])", f"{self.root}{folder}", text)
        return text

    def build(self, target: str) -> None:
        environments: dict[str, dict[str, str]] = {}
        folders: dict[str, Path] = {}
        for stage in order(target):
            base, instructions = STAGES[stage]
            environment = dict(environments.get(base, self.first))
            folder = folders.get(base, self.root)
            for instruction in instructions:
                folder = self.step(instruction, environment, folder)
            environments[stage], folders[stage] = environment, folder
        self.environment, self.folder = environments[target], folders[target]

    def step(self, instruction: Instruction, environment: dict[str, str], folder: Path) -> Path:
        name, value = instruction
        if name == "RUN":
            self.executed.append(value)
            script = ["/bin/sh", "-ec", self.here(value)]
            done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{value}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
        elif name == "ENV":
            for key, text in re.findall(r"(\w+)=(\S+)", value):
                environment[key] = re.sub(r"\$(\w+)", lambda found: environment[found[1]], self.here(text))
        elif name == "ARG":
            key, _, default = value.partition("=")
            environment[key] = self.arguments.get(key, default)
        elif name == "WORKDIR":
            folder = Path(self.here(value))
            folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            self.copy(value, folder)
        else:
            self.results[name] = json.loads(value) if value.startswith("[") else [value]
        return folder

    def copy(self, value: str, folder: Path) -> None:
        words = [word for word in value.split() if not word.startswith("--")]
        *sources, target = (self.here(word) for word in words)
        if "--from=" in value:
            assert sources == [target]
            assert Path(target).exists(), value
            return
        for source in sources:
            place = folder / target if not target.startswith("/") else Path(target)
            place = place / Path(source).name if target.endswith("/") else place
            whole = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            whole(ROOT / source, place)
            if mode := re.search(r"--chmod=(\d+)", value):
                place.chmod(int(mode[1], 8))

    def start(self, *more: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """The command of the image behind its entrypoint."""
        words = [*self.results["ENTRYPOINT"], *(command or self.results["CMD"]), *more]
        environment = {**self.environment, "OMP_NUM_THREADS": "1"}
        words[0] = shutil.which(words[0], path=environment["PATH"]) or words[0]
        return subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def index() -> str:
    """The address that pip installs from."""
    from pip._internal.models.index import PyPI

    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return os.environ.get("PIP_INDEX_URL") or configured.stdout.strip() or PyPI.simple_url


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_builds_and_starts(target: str, tmp_path: Path):
    build = Build(tmp_path / "root", {"TORCH_INDEX": index()})
    try:
        build.build(target)
        needed = [i.value for stage in order(target) for i in STAGES[stage][1] if i.name == "RUN"]
        assert build.executed == needed
        assert build.results["USER"] == ["$UID"]
        if os.getuid() == 0:
            assert (tmp_path / "root/etc/passwd").read_text().startswith("dlframe:x:1000:1000:")
        check = build.start(command=["python", "-m", "pip", "check"])
        assert check.returncode == 0, check.stdout
        {"cpu": trains, "cuda": wants_a_gpu, "tracking": serves}[target](build)
    finally:
        shutil.rmtree(tmp_path / "root")


def trains(build: Build) -> None:
    done = build.start("epochs=1")
    assert done.returncode == 0, done.stderr
    (run,) = (path for path in (build.folder / "runs").iterdir() if path.name.startswith("cnn-digits-"))
    assert json.loads((run / "result.json").read_text())["metrics"]["accuracy"] > 0.1
    assert (build.folder / "state").is_dir(), "the list of runs outlives a container in a volume"
    where = build.start(command=["python", "-c", "import dlframe, ray, psycopg; print(dlframe.__file__)"])
    assert where.stdout.startswith(str(build.root / "opt/dlframe")), where.stderr
    assert build.start(command=["dlframe", "list"]).returncode == 0
    assert build.start(command=["python", "-c", "import pytest"]).returncode == 1, "what tests need is not in the image"


def wants_a_gpu(build: Build) -> None:
    done = build.start("epochs=1")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("error: trainer.accelerator: "), line


def serves(build: Build) -> None:
    done = build.start()
    assert done.returncode == 0, done.stderr
    assert "--serve-artifacts" in done.stdout
    assert build.start(command=["python", "-c", "import boto3, flask_wtf, psycopg"]).returncode == 0
    assert build.start(command=["python", "-c", "import torch"]).returncode == 1, "a server needs no torch"


def test_the_cpu_target_says_what_it_lacks(tmp_path: Path):
    """Without the build argument, the build ends at the line that needs it, before anything is installed."""
    (run,) = (i.value for i in STAGES["build-cpu"][1] if i.name == "RUN" and "TORCH_INDEX" in i.value)
    done = subprocess.run(["/bin/sh", "-ec", run], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip().endswith("TORCH_INDEX: must be the address of the CPU wheels of PyTorch, see pytorch.org")
