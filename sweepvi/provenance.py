"""Where a number comes from: versions, and the commit of the folder it was made in."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from typing import Any

PACKAGES = ("sweepvi", "torch", "pyro-ppl", "hydra-core", "numpy")


def provenance() -> dict[str, Any]:
    """``versions`` of Python and of the packages that decide a fit's numbers; ``git_commit`` of the current folder.

    Asking for the commit starts a process or two: of many fits, once.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
    }


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """The commit checked out in the current folder, with ``+changes`` if files differ; None outside a repository."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
