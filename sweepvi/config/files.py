"""Files that a user brings: runs to repeat, folders of options; and what they must not contain.

Hydra acts on some keys before any of our code sees them: it imports and calls what ``_target_`` names, logging
configuration can do the same, and resolvers read the environment. Such files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepvi.config.locate import SELECTIONS, SWEEPING, groups, options
from sweepvi.errors import Problem, listed, unknown

ALLOWED_HYDRA = ("run", "sweep")
"""Keys of Hydra's own configuration that a user's file may set: where outputs go."""

HYDRAS_OWN = "a file must not change Hydra's own configuration"
_HYDRA = re.compile(r"(^|[/@.\s])hydra\b")
_HARMLESS = re.compile(r"\$\{(now:[^${}]*|[\w.\[\]]+)\}")


def read_run(path: Path, more: Sequence[str] = ()) -> tuple[dict[str, Any], list[Problem]]:
    """The configuration in a run folder, or in a file, which may have ``more`` keys; and what is wrong with it."""
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        return {}, [Problem(str(path), "no run there: neither a configuration file nor a folder with config.yaml")]
    content, problems = _read(file)
    if problems:
        return {}, problems
    if not isinstance(content, dict) or not content:
        return {}, [Problem(str(file), "is not the configuration of a run")]
    problems = [Problem(f"{file}: {where}", what) for where, what in _forbidden(content, interpolation=True)]
    known = [*(group for group in groups() if group not in (*SELECTIONS, *SWEEPING)), *more]
    problems += [
        Problem(f"{file}: {key}", unknown("config group", str(key), known)) for key in content if key not in known
    ]
    for group in set(known) & content.keys() - set(more):
        problems += [Problem(f"{file}: {group}", message) for message in _wrong_with(group, content[group])]
    return content, problems


def _wrong_with(group: str, node: Any) -> Iterator[str]:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        yield f"must be a mapping with a name, one of {listed(options(group))}"
    elif node["name"] == "python":
        yield "was given as a Python object; repeat that run in Python"
    elif node["name"] not in options(group):
        yield f"name = {node['name']!r}: {unknown(group, node['name'], options(group))}"


def scan(folder: Path) -> list[Problem]:
    """What the files of a user's configuration folder must not contain."""
    if not folder.is_dir():
        return [Problem.of("--config-dir", str(folder), "no such folder")]
    problems = []
    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        content, unreadable = _read(file)
        problems += unreadable
        problems += [Problem(f"{file}: {where}", what) for where, what in _forbidden(content, interpolation=False)]
        text = file.read_text(encoding="utf-8", errors="replace")
        header = any("@package" in line and "hydra" in line for line in text.splitlines())
        if header or file.relative_to(folder).parts[0].partition(".")[0] == "hydra":
            problems.append(Problem(str(file), HYDRAS_OWN))
    return problems


def _read(file: Path) -> tuple[Any, list[Problem]]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False), []
    except RecursionError:
        return None, [Problem(str(file), "is not readable as YAML: it contains itself")]
    except (yaml.YAMLError, OSError, ValueError, OmegaConfBaseException) as error:
        return None, [Problem(str(file), f"is not readable as YAML: {' '.join(str(error).split())}")]


def _forbidden(content: Any, interpolation: bool, where: str = "") -> Iterator[tuple[str, str]]:
    """Everything in a file's content that it must not hold; ``interpolation`` refuses ``${…}`` of any kind too."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _forbidden_entry(str(key), value, interpolation, f"{where}.{key}" if where else str(key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _forbidden(value, interpolation, f"{where}[{index}]")
    elif isinstance(content, str):
        if where.startswith("defaults") and _HYDRA.search(content):
            yield where, HYDRAS_OWN
        if "${" in (content if interpolation else _HARMLESS.sub("", content)):
            yield where, "this interpolation is refused: a file must not read the environment or call anything"


def _forbidden_entry(key: str, value: Any, interpolation: bool, where: str) -> Iterator[tuple[str, str]]:
    if key in ("_target_", "()"):
        yield where, f"{key} is refused: names resolve in the registry only"
    elif where == "hydra" and isinstance(value, Mapping):
        bad = [str(name) for name in value if name not in ALLOWED_HYDRA]
        if bad:
            yield where, f"refused: a file may set hydra.{' and hydra.'.join(ALLOWED_HYDRA)} only, not {listed(bad)}"
        yield from _forbidden(value, interpolation, where)
    elif _HYDRA.search(key):
        yield where, HYDRAS_OWN
    else:
        yield from _forbidden(value, interpolation, where)
