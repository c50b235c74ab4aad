"""Environment of a run: versions, machine, git commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def is_main() -> bool:
    """Return whether this is the main process of a run, which prints and writes."""
    if not {"WORLD_SIZE", "MASTER_ADDR"} & os.environ.keys():
        return True  # a rank without a launcher is left over from another program
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def describe(*, changed: bool) -> dict[str, Any]:
    """Return package versions, machine and git state.

    Args:
        changed: Whether tracked files differ from the commit, see `changes`.
    """
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "packages": versions(),
        "git": git(changed),
    }


def versions() -> dict[str, str | None]:
    """Return versions of dlframe and its dependencies; None if not installed."""
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


def git(changed: bool) -> dict[str, Any]:
    """Return commit, branch and `changed`; empty outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "branch": _git("rev-parse", "--abbrev-ref", "HEAD"), "changed": changed}


def changes() -> str:
    """Return the diff of tracked files against the commit."""
    # The repository's configuration must not run programs.
    return _git("-c", "core.fsmonitor=false", "diff", "--no-ext-diff", "--no-textconv", "HEAD")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path.cwd(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
