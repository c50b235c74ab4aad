"""Environment of a run: versions, machine, git commit."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlframe.config.devices import slurm_tasks
from dlframe.storage.stamps import Stamps, stamps


def is_main() -> bool:
    """Return whether this is the main process of a run, which prints and writes."""
    return rank() == "0"


def rank() -> str:
    """Return the number of this process among those of its run; of a launcher that tells none, another one than 0."""
    names = ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"]
    if not {"WORLD_SIZE", "MASTER_ADDR"} & os.environ.keys():
        names = []  # a rank without a launcher is left over from another program
    if slurm_tasks() > 1 and "RANK" not in os.environ:
        names.append("SLURM_PROCID")
    return next((found for name in names if (found := os.environ.get(name, "0")) != "0"), "0")


SAFE = {"PYTHONSAFEPATH": "1"}
"""Environment in which Python and its children do not import from the current folder."""


def python(*arguments: str) -> list[str]:
    """Return a command of this interpreter that imports nothing from the current folder."""
    return [sys.executable, *([] if _lives_here() else ["-P"]), *arguments]


def leave_current_folder() -> None:
    """Keep this process, which is that of a command, and its children from taking files of the current folder for code."""
    if not _lives_here():
        os.environ.update(SAFE)
    if os.path.lexists("matplotlibrc"):
        # matplotlib would read it when imported, as a part of torchmetrics too.
        here = os.getcwd()
        os.chdir(os.path.dirname(__file__))
        try:
            importlib.import_module("dlframe.plots")
        finally:
            os.chdir(here)


def _lives_here() -> bool:
    """Return whether dlframe itself is in the current folder, not installed."""
    try:
        return Path(__file__).parents[2] == Path.cwd()
    except FileNotFoundError:  # the current folder has been removed
        return False


def describe(git: dict[str, Any], plugins: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return package versions, machine, git state and the code of plugins, see `code_of`."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions(),
        "git": git,
        "plugins": plugins,
    }


def versions() -> dict[str, str | None]:
    """Return versions of dlframe and its dependencies, as they were when first asked for; None if not installed."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str | None]:
    try:
        requirements = importlib.metadata.requires("dlframe") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []  # run from source, not installed
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0] for text in requirements if "extra ==" not in text} | {"dlframe"}
    return {name: _version(name) for name in sorted(names)}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class GitState:
    """State of the repository of the current folder.

    Attributes:
        described: Commit, branch, and whether tracked files differ from the commit, None if unknown; empty outside a
            repository.
        changes: See `changes`.
    """

    described: dict[str, Any]
    changes: str | None


_last: tuple[Any, list[str], Stamps, GitState] | None = None
"""The state read last: for which place, the files that it depends on, their stamps, and the state."""


def git_state() -> GitState:
    """Return the state of the repository; that of the last call while its files have the same stamps.

    Asking git takes as long as training a small model for some epochs.
    """
    global _last
    here = Path.cwd()
    variables = sorted((key, value) for key, value in os.environ.items() if key.startswith("GIT_"))
    place = here, variables, [os.path.lexists(folder / ".git") for folder in (here, *here.parents)]
    if _last and _last[0] == place and stamps(_last[1]) == _last[2]:
        return _last[3]
    watched = _watched()
    written = None if watched is None else stamps(watched)
    found = changes()
    state = GitState(git(None if found is None else bool(found)), found)
    _last = None if watched is None or written is None else (place, watched, written, state)
    return state


def _watched() -> list[str] | None:
    """Return the files that commit, branch and changes depend on; None if unknown."""
    if not (top := _top()):
        return []
    names = ("HEAD", "index", "config", "config.worktree", "packed-refs", "reftable/tables.list", "info/attributes")
    branch = _git("rev-parse", "--symbolic-full-name", "HEAD") or ""
    names = (*names, branch) if branch.startswith("refs/") else names
    asked = [word for name in names for word in ("--git-path", name)]
    found = _git("rev-parse", "--path-format=absolute", *asked)
    tracked = _git("ls-files", "-z", "--full-name", ":/")
    if found is None or tracked is None:
        return None
    own = os.environ.get("GIT_CONFIG_GLOBAL") or "~/.gitconfig", "~/.config/git/config"
    paths = [*found.splitlines(), *map(os.path.expanduser, own)]
    return [*paths, *(os.path.join(top, name) for name in tracked.split("\0") if name)]


def _top() -> Path | None:
    """Return the folder of the repository; not git's --show-toplevel, which the configuration decides."""
    return next((path for path in (Path.cwd(), *Path.cwd().parents) if (path / ".git").exists()), None)


def git(changed: bool | None) -> dict[str, Any]:
    """Return commit, branch and `changed`; empty outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "branch": _git("rev-parse", "--abbrev-ref", "HEAD"), "changed": changed}


def changes() -> str | None:
    """Return the diff of tracked files against the commit; None if git cannot tell.

    The configuration of a repository can name programs: filters, monitors, hooks, transports. git therefore works in an empty
    repository of its own with the commit, index, objects and files of this one, and only the user's configuration counts.
    """
    found = _git("rev-parse", "--path-format=absolute", "--git-path", "objects", "--git-path", "index", "HEAD")
    if not found:
        return ""
    objects, index, commit = found.splitlines()
    if not (top := _top()):
        return None
    lines = re.findall(KEPT, _git("config", "--local", "--get-regexp", r"^core\.") or "", re.MULTILINE)
    lines = [f"{key} = {value}" for key, value in [("repositoryFormatVersion", 1), *lines]]
    lines += ["[extensions]", "objectFormat = sha256"] if len(commit) == 64 else []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "refs").mkdir()
        Path(folder, "HEAD").write_text(commit, encoding="utf-8")
        Path(folder, "config").write_text("\n".join(["[core]", *lines, ""]), encoding="utf-8")
        places = {"GIT_DIR": folder, "GIT_WORK_TREE": str(top), "GIT_OBJECT_DIRECTORY": objects, "GIT_INDEX_FILE": index}
        return _git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all", "HEAD", **places)


KEPT = r"^core\.(autocrlf|eol|filemode|ignorecase|symlinks) (true|false|input|lf|crlf|native)$"
"""What counts of a repository's configuration: how its files are on this disk."""


def _git(*arguments: str, **environment: str) -> str | None:
    """Return what git prints; None if it fails."""
    options = (
        "--no-pager",
        "-c",
        "core.fsmonitor=false",
        "-c",
        f"core.hooksPath={os.devnull}",
        "-c",
        "safe.bareRepository=explicit",
    )
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *options, *arguments],
            cwd=Path.cwd(),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
