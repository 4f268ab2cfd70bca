"""The linters find nothing, every file is Python 3.10, and no file names a place on one machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_OURS = {".venv", "__pycache__", "build", "dist", "outputs", "multirun", "node_modules"}
LINTERS = {
    "check": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "--diff", "."],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


def project_files():
    """What git has, or would take; all files, where the checkout has no git."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not ours_not(path.relative_to(ROOT))]
    return sorted(path for path in paths if path.is_file())


def ours_not(path):
    return any(part in NOT_OURS or (part.startswith(".") and part != ".ci") for part in path.parts)


@pytest.mark.parametrize("linter", LINTERS)
def test_linter(linter):
    done = subprocess.run([sys.executable, "-m", *LINTERS[linter]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_python_3_10():
    files = [path for path in project_files() if path.suffix == ".py"]
    assert ROOT / "sweepvi/cli.py" in files
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))


# Put together here, so that this file does not hold what it looks for.
PLACES = [f"/{name}/" for name in ("work", "opt", "root", "home", "Users")] + ["/".join(["", "tmp", "venv"])]
PLACE = re.compile(r"(?<![\w.\-/])(" + "|".join(map(re.escape, PLACES)) + r")[\w.\-/]*")


def places_in(text):
    return [match[0] for match in PLACE.finditer(text)]


def test_no_file_names_a_place_on_one_machine():
    found = []
    for path in project_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}: {p}" for n, line in enumerate(lines, 1) for p in places_in(line)]
    assert found == []


def test_such_a_place_is_seen():
    assert all(places_in(f'x = "{place}x"') for place in PLACES)
    assert places_in("src/work/x experiments/opt/y https://example.org/root/z") == []
