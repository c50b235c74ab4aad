"""dlframe as a user runs it, in a process of its own that is forked from one which has imported what is slow, but not torch.

A forked process starts in milliseconds, and what it registers, changes or imports ends with it. This file, run as a script,
is the process that forks: one JSON object a line on standard input, one on standard output.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LIMIT = 120
"""Seconds that a command may take."""

MODULES = (
    *("dlframe.cli.help", "dlframe.inspection.listing", "dlframe.studies.grid", "dlframe.registry.plugins"),
    *("dlframe.data.digits", "dlframe.data.image_folder", "dlframe.storage.checkpoint"),
    *("PIL.Image", "hydra", "numpy", "pandas", "sklearn.datasets", "sklearn.model_selection", "scipy.stats"),
)
"""What is imported once."""


class Answer(NamedTuple):
    """What came of a command: exit status, both outputs, and whether torch was imported."""

    code: int
    out: str
    error: str
    torch: bool


def dlframe(*arguments: str | bytes, cwd: Path, environment: Mapping[str, str] | None = None) -> Answer:
    """`python -m dlframe ...` in a folder. Of this process's environment it has all but dlframe's own variables."""
    return _ask([os.fsdecode(argument) for argument in arguments], "", cwd, environment)


def python(code: str, *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Answer:
    """`python -c CODE ...` likewise."""
    return _ask(list(arguments), code, cwd, environment)


def _ask(arguments: list[str], code: str, cwd: Path, environment: Mapping[str, str] | None) -> Answer:
    own = {name: value for name, value in os.environ.items() if not name.startswith("DLFRAME")}
    request = {"arguments": arguments, "code": code, "folder": str(cwd), "environment": {**own, **(environment or {})}}
    return Answer(**_server()(request))


@functools.cache
def _server() -> Callable[[Any], Any]:
    folder = tempfile.TemporaryDirectory()  # has no plugins
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("DLFRAME")}
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        cwd=folder.name,
        env={**own, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(folder.cleanup)
    atexit.register(process.communicate)

    def ask(request: Any) -> Any:
        assert process.stdin
        assert process.stdout
        print(json.dumps(request), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    return ask


# --- the process that forks


def _serve() -> None:
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("dlframe.registry.plugins").discover()
    assert "torch" not in sys.modules
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            answer = _fork(out.fileno(), error.fileno(), **json.loads(line))
            for name, file in (("out", out), ("error", error)):
                file.seek(0)
                answer[name] = file.read().decode("utf-8", "replace")
        print(json.dumps(answer), flush=True)


def _fork(out: int, error: int, *, arguments: list[str], code: str, folder: str, environment: dict[str, str]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(out, 1)
        os.dup2(error, 2)
        status = _child(arguments, code, folder, environment)
        os.write(writing, b"1" if "torch" in sys.modules else b"0")
        os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        torch = pipe.read() == b"1"
    return {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), "torch": torch}


def _child(arguments: list[str], code: str, folder: str, environment: dict[str, str]) -> int:
    """The exit status."""
    signal.alarm(LIMIT)
    status: Any = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.path.insert(0, "")
        sys.argv = ["-c" if code else "dlframe", *arguments]
        if code:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
            status = 0
        else:
            from dlframe.cli import main

            status = main(arguments)
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status or 0


if __name__ == "__main__":
    _serve()
