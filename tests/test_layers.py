"""Data flows one way, and so do imports: config → registry → recipe → engine → result → report and interfaces."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "sweepvi"

# What each part may import, of sweepvi's own. A part missing here fails the test: give it a place.
BASE = {"errors", "keys", "files", "private", "random_state", "provenance", "loading"}
COMPONENTS = {
    "geometry",
    "optim",
    "schedule",
    "partition",
    "estimators",
    "guides",
    "models",
    "problem",
    "programs",
    "settings",
    "stopping",
    "distributed",
}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "log_products": set(),
    "private": {"log_products"},
    "random_state": set(),
    "provenance": set(),
    "diagnostics": set(),
    "run_folder": set(),
    "verdict": {"diagnostics"},
    "posterior": {"diagnostics"},
    "keys": {"errors"},
    "loading": {"errors"},
    **dict.fromkeys(COMPONENTS, BASE | COMPONENTS),
    "refused": set(),
    "registry": {"errors", "keys", "refused"},
    "frozen_noise": BASE | COMPONENTS | {"registry"},
    "rank_limits": {"errors", "frozen_noise"},
    "recipe": BASE | COMPONENTS | {"registry", "frozen_noise", "rank_limits"},
    "engine": BASE | COMPONENTS | {"recipe", "diagnostics", "posterior"},
    "evidence": {"engine", "diagnostics", "verdict"},
    "results": BASE
    | COMPONENTS
    | {"registry", "recipe", "engine", "diagnostics", "run_folder", "posterior", "evidence", "verdict"},
    "runs": {"errors", "files", "engine", "provenance", "recipe", "report", "results", "run_folder"},
    "preset": {"errors", "files", "registry", "recipe", "engine", "results", "verdict", "report", "run_folder", "runs"},
    "report": {"errors", "files"},
    "progress": {"engine"},
    "config": {"errors", "refused"},
    "api": BASE | COMPONENTS | {"registry", "recipe", "engine", "results", "runs", "progress", "preset", "rank_limits"},
    "command": {"errors"},
    "preflight": BASE
    | {"api", "config", "engine", "recipe", "registry", "command", "results", "run_folder"}
    | {"sweep", "preset", "launching", "rank_limits", "distributed"},
    "launching": {"errors", "sweep"},
    "catalogue": {"config", "registry", "keys", "sweep"},
    "telling": {"config", "results"},
    "cli": BASE
    | {"__init__", "config", "command", "preflight", "catalogue", "telling", "progress", "api", "recipe", "results"}
    | {"sweep", "preset", "runs", "engine", "launching"},
    "sweep": BASE
    | COMPONENTS
    | {"registry", "recipe", "engine", "results", "run_folder", "api", "config", "telling", "report", "progress"}
    | {"diagnostics", "preset", "frozen_noise", "__init__"},
    "probing": BASE
    | COMPONENTS
    | {"registry", "recipe", "engine", "results", "run_folder", "api", "config", "telling"}
    | {"command", "preflight", "catalogue", "cli", "__init__"},
    "probe": {"probing"},
    "__init__": {"api", "errors", "results", "probing", "sweep"},
    "__main__": {"cli"},
}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path):
    """Parts of sweepvi that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "sweepvi":
                known = (ROOT / parts[1]).is_dir() or (ROOT / f"{parts[1]}.py").is_file()
                yield parts[1] if known else "__init__"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    assert set(imports_of(path)) - {part} <= MAY_IMPORT[part]


def test_only_the_command_enters_hydra():
    for path in ROOT.rglob("*.py"):
        assert ("hydra.main" in path.read_text().replace("``hydra.main``", "")) == (path.name == "cli.py"), path


def loaded_by(code):
    script = f"import sys; {code}; print([m for m in ('torch', 'pyro', 'hydra', 'matplotlib') if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]


def test_import_and_help_load_nothing_heavy():
    assert loaded_by("import sweepvi") == "[]"
    assert loaded_by("import sweepvi.cli; sweepvi.cli.main(['--help'])") == "[]"
    assert loaded_by("import sweepvi.probing.command as c; c.main(['--help'])") == "[]"
