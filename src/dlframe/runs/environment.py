"""What a run ran with: versions, machine, git commit. No secrets: no environment variables are kept."""

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
    """Whether this is the one process of a run that speaks and writes."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))


def describe(*, changed: bool) -> dict[str, Any]:
    """Versions of Python, of dlframe and of what it depends on; the machine; the state of git in the current folder.

    Args:
        changed: Whether tracked files differ from the commit, as `changes` has told.
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
    """Versions of dlframe and of what it depends on; None of what is not installed."""
    try:
        requirements = importlib.metadata.requires("dlframe") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []  # run from its source, not installed
    names = {re.split(r"[^A-Za-z0-9_.-]", text)[0] for text in requirements if "extra ==" not in text} | {"dlframe"}
    return {name: _version(name) for name in sorted(names)}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def git(changed: bool) -> dict[str, Any]:
    """Commit, branch, and whether files differ from it; empty outside a repository, or without git."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "branch": _git("rev-parse", "--abbrev-ref", "HEAD"), "changed": changed}


def changes() -> str:
    """The difference between the tracked files and the commit."""
    # No programs that the repository's own configuration names.
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
