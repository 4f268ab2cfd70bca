"""Compiled programs on disk."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

KEPT = 200
"""Programs, at most; those that have not been used for longest go."""


def cache_folder() -> Path | None:
    """Where compiled programs are kept: ``$SWEEPVI_CACHE``, or ``sweepvi`` in the user's folder of caches.

    None if there is no such folder that is this user's own: what is in it is run.
    """
    root = os.environ.get("SWEEPVI_CACHE") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "sweepvi"
    )
    folder = Path(root) / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid():
            return None
        if stat.S_IMODE(found.st_mode) & 0o077:
            folder.chmod(0o700)
        return folder if os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):
        return None


def find(folder: Path, key: str) -> Path | None:
    """The program of a key, if it is there and whole."""
    path, digest = folder / f"{key}.pt2", folder / f"{key}.sha256"
    try:
        if digest.read_text(encoding="ascii") != _digest(path):
            return None
        os.utime(path)
    except (OSError, UnicodeDecodeError):
        return None
    return path


def keep(folder: Path, key: str, package: Path) -> Path:
    """Move a program, on the same disk, to where :func:`find` sees it."""
    path, digest = folder / f"{key}.pt2", folder / f"{key}.sha256"
    digest.unlink(missing_ok=True)
    written = package.with_suffix(".sha256")
    written.write_text(_digest(package), encoding="ascii")
    package.replace(path)
    written.replace(digest)
    for old in sorted(folder.glob("*.pt2"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
