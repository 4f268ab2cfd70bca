"""Where configuration is, and what can be chosen there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SELECTIONS = ("preset", "experiment")
"""Config groups that select other groups' options, and name no component."""

SWEEPING = ("sweep", "workers")
"""Config groups that say how many fits are run, and are no part of a fit's configuration."""

SEARCH = "search"
"""The key of an option's file that says what of it a sweep searches: key → text; no part of a fit's configuration."""

CODE_KEYS = {"model": ("path", "data", "heldout"), "guide": ("path",)}
"""Keys whose value is a Python path: taken from the command line, never from a file alone."""


def conf_dir() -> Path:
    """The folder of the shipped configuration: in an installed package, or beside it in a checkout."""
    package = Path(str(files("sweepvi")))
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def groups() -> tuple[str, ...]:
    """The config groups, in the order of ``config.yaml``'s defaults."""
    import yaml

    primary = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    return tuple(name for entry in primary["defaults"] if isinstance(entry, dict) for name in entry if " " not in name)


def options(group: str, extra: Path | None = None) -> list[str]:
    """The options of a group: files in the shipped folder and in the user's; ``FOLDER/NAME`` for files a level down."""
    folders = [conf_dir() / group, *([extra / group] if extra else [])]
    patterns = ("*.yaml", "*/*.yaml") if group in SELECTIONS else ("*.yaml",)
    files = ((folder, file) for folder in folders for pattern in patterns for file in folder.glob(pattern))
    return sorted({file.relative_to(folder).with_suffix("").as_posix() for folder, file in files})


def selected_by(selection: str, option: str, extra: Path | None = None) -> dict[str, str]:
    """The options of other groups that a preset or an experiment chooses, by group."""
    import yaml

    paths = [folder / selection / f"{option}.yaml" for folder in (conf_dir(), extra) if folder is not None]
    file = next((path for path in paths if path.is_file()), None)
    node = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
    entries = node.get("defaults") if isinstance(node, dict) else None
    pairs = [pair for entry in entries or () if isinstance(entry, dict) for pair in entry.items()]
    return {str(key).removeprefix("override").strip(" /"): str(value) for key, value in pairs}
