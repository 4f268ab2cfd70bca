"""Configuration: where it is, how the command line composes it, what a file may not contain.

Hydra composes. It is asked before ``hydra.main`` is entered, so that everything wrong is known before a folder is
made; and it is never shown a problem that can be said better than Hydra says it. No torch is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from sweepvi.errors import Problem, listed, unknown

SELECTIONS = ("experiment",)
"""Config groups that select other groups' options, and name no component."""

CODE_KEYS = {"model": ("path", "data"), "guide": ("path",)}
"""Keys whose value is a Python path: taken from the command line, never from a file alone."""


def conf_dir() -> Path:
    """The folder of the shipped configuration: in an installed package, or beside it in a checkout."""
    installed = Path(str(files("sweepvi"))) / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "conf"


def groups() -> tuple[str, ...]:
    """The config groups, in the order of ``config.yaml``'s defaults."""
    import yaml

    primary = yaml.safe_load((conf_dir() / "config.yaml").read_text(encoding="utf-8"))
    return tuple(name for entry in primary["defaults"] if isinstance(entry, dict) for name in entry)


def options(group: str, extra: Path | None = None) -> list[str]:
    """The options of a group: files in the shipped folder, and in the user's."""
    folders = [conf_dir() / group, *([extra / group] if extra else [])]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


@dataclass
class Composition:
    """What a command line comes to."""

    config: dict[str, Any] = field(default_factory=dict)
    """A node for every group, resolved; plain data."""
    run_dir: Path | None = None
    """Where Hydra will put the run."""
    overrides: list[str] = field(default_factory=list)
    """The overrides to give Hydra: an earlier run's, and then ``given``."""
    given: list[str] = field(default_factory=list)
    """The command line's, as Hydra can take them."""
    problems: list[Problem] = field(default_factory=list)


def compose(overrides: Iterable[str], extra: Path | None = None, base: Mapping[str, Any] | None = None) -> Composition:
    """Compose a configuration.

    Args:
        overrides: Hydra overrides, ``group=option`` and ``group.key=value``, one value each.
        extra: the user's configuration folder, already scanned.
        base: an earlier run's configuration to start from, in place of the shipped defaults.

    Returns:
        The configuration as far as it can be composed, with every problem found on the way.

    """
    sorted_ = _Sorter(extra)
    for text in overrides:
        sorted_.add(text)
    given = base_overrides(base, sorted_.selected) if base else []
    made = Composition(overrides=[*given, *sorted_.valid], given=sorted_.valid, problems=sorted_.problems)
    _compose_into(made, extra)
    made.problems += _code_only_in_file(made.config, sorted_.keys)
    return made


class _Sorter:
    """Reads overrides one by one; keeps those that Hydra can take, and a problem for each of the others."""

    def __init__(self, extra: Path | None) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self.extra = extra
        self.groups = groups()
        self.valid: list[str] = []
        self.problems: list[Problem] = []
        self.selected: set[str] = set()
        self.keys: set[str] = set()
        self._parser = OverridesParser.create()

    def add(self, text: str) -> None:
        from hydra.errors import HydraException

        try:
            override = self._parser.parse_override(text)
        except HydraException:
            self.problems.append(Problem(text, "cannot be read; write group=option or group.key=value"))
            return
        key = override.key_or_group
        if override.is_sweep_override():
            self.problems.append(Problem(text, "has several values; list them (a,b,c) and add -m for one fit each"))
        elif key.partition(".")[0] == "hydra" or key.startswith("hydra/"):
            self.valid.append(text)
        elif key in self.groups and override.package is None:
            self._select(text, key, None if override.is_delete() else override.value())
        else:
            self._set(text, key, override.is_delete())

    def _select(self, text: str, group: str, option: Any) -> None:
        known = options(group, self.extra)
        self.selected.add(group)
        if option is None and group in SELECTIONS:
            self.valid.append(f"{group}=null")
        elif not isinstance(option, str):
            self.problems.append(Problem(text, f"must name one option: {listed(known)}"))
        elif option not in known:
            self.problems.append(Problem.of(group, option, unknown(group, option, known)))
        else:
            self.valid.append(f"{group}={option}")

    def _set(self, text: str, key: str, delete: bool) -> None:
        group, dot, _ = key.partition(".")
        if not dot or group not in self.groups or group in SELECTIONS:
            self.problems.append(Problem(text, unknown("config group", group, self.groups)))
            return
        self.keys.add(key)
        # Added by force: whether the key exists is the registry's to say, with all that is valid.
        self.valid.append(text if delete else forced(text))


def each_value(overrides: Iterable[str]) -> Iterator[list[str]]:
    """A sweep's overrides with one value each, so that each value occurs; the others at their first one.

    An override that cannot be read is passed on as it is, for :func:`compose` to report.
    """
    values = [_values_of(text) for text in overrides]
    first = [entry[0] for entry in values]
    yield first
    for place, entry in enumerate(values):
        for value in entry[1:]:
            yield [*first[:place], value, *first[place + 1 :]]


def _values_of(text: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
        if not override.is_sweep_override():
            return [text]
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()] or [text]
    except HydraException:
        return [text]


def forced(text: str) -> str:
    """An override of a key, made one that adds the key too; a choice of option as it is."""
    key = text.partition("=")[0]
    return "++" + text.lstrip("+") if "." in key and key[0] != "~" and not key.startswith("hydra.") else text


def _compose_into(made: Composition, extra: Path | None) -> None:
    import hydra
    import omegaconf
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    search = [f"hydra.searchpath=[{quoted('file://' + str(extra.resolve()))}]"] if extra else []
    try:
        with hydra.initialize_config_dir(str(conf_dir()), job_name="sweepvi", **version_base()):
            composed = hydra.compose("config", overrides=[*search, *made.overrides], return_hydra_config=True)
        made.run_dir = Path(str(composed.hydra.run.dir))
        composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, omegaconf.errors.OmegaConfBaseException) as error:
        made.problems.append(Problem(*_said_by_hydra(error)))
        return
    assert isinstance(plain, dict)
    made.config = {str(key): value for key, value in plain.items() if key not in SELECTIONS}


def _said_by_hydra(error: Exception) -> tuple[str, str]:
    key = getattr(error, "full_key", None) or "configuration"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return str(key), " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=")))


def version_base() -> dict[str, str]:
    """The argument that Hydra 1.3 wants and 1.4 warns of."""
    import hydra

    major, minor = hydra.__version__.split(".")[:2]
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}


def _code_only_in_file(config: Mapping[str, Any], keys: set[str]) -> list[Problem]:
    problems = []
    for group, names in CODE_KEYS.items():
        node = config.get(group)
        if not isinstance(node, Mapping):
            continue
        for name in names:
            value = node.get(name)
            if value not in (None, "???") and f"{group}.{name}" not in keys:
                message = f"a file alone never runs code; give it on the command line: {group}.{name}={value}"
                problems.append(Problem.of(f"{group}.{name}", value, message))
    return problems


def base_overrides(base: Mapping[str, Any], replaced: set[str]) -> list[str]:
    """An earlier run's configuration as overrides, but for the groups in ``replaced`` and for Python paths."""
    overrides = []
    for group, node in base.items():
        if group in replaced or not isinstance(node, Mapping):
            continue
        overrides.append(f"{group}={node.get('name')}")
        overrides += [
            f"++{group}.{key}={quoted(value)}"
            for key, value in node.items()
            if key != "name" and (value is None or key not in CODE_KEYS.get(group, ()))
        ]
    return overrides


def quoted(value: Any) -> str:
    """A value in Hydra's override grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(quoted, value)) + "]"
    return QuotedString(str(value), Quote.single).with_quotes()


def read_run(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The configuration in a run folder, or in a file; and what is wrong with it."""
    file = path / "config.yaml" if path.is_dir() else path
    if not file.is_file():
        return {}, [Problem(str(path), "no run there: neither a configuration file nor a folder with config.yaml")]
    content, problems = _read(file)
    if problems:
        return {}, problems
    if not isinstance(content, dict):
        return {}, [Problem(str(file), "is not a configuration")]
    problems = [Problem(f"{file}: {where}", what) for where, what in _forbidden(content, interpolation=True)]
    for group, node in content.items():
        if group not in groups() or group in SELECTIONS:
            problems.append(Problem(f"{file}: {group}", unknown("config group", str(group), groups())))
        elif not isinstance(node, dict) or "name" not in node:
            problems.append(Problem(f"{file}: {group}", "must be a mapping with a name"))
        elif node["name"] == "python":
            problems.append(Problem(f"{file}: {group}", "was given as a Python object; repeat that run in Python"))
        elif node["name"] not in options(str(group)):
            problems.append(
                Problem.of(
                    f"{file}: {group}",
                    node["name"],
                    unknown(str(group), str(node["name"]), options(str(group))),
                )
            )
    return content, problems


def scan(folder: Path) -> list[Problem]:
    """What the files of a user's configuration folder must not contain.

    Hydra acts on some keys before any of our code sees them: it can import and call what ``_target_`` names, and read
    the environment. Such files are refused.
    """
    if not folder.is_dir():
        return [Problem.of("--config-dir", str(folder), "no such folder")]
    problems = []
    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        content, unreadable = _read(file)
        found = [Problem(f"{file}: {where}", what) for where, what in _forbidden(content, interpolation=False)]
        header = [
            line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if "@package" in line
        ]
        if any("hydra" in line for line in header):
            found.append(Problem(str(file), "a file must not write into Hydra's own configuration"))
        problems += unreadable + found
    return problems


def _read(file: Path) -> tuple[Any, list[Problem]]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.load(file), resolve=False), []
    except (yaml.YAMLError, OSError, ValueError, OmegaConfBaseException) as error:
        return None, [Problem(str(file), f"is not readable as YAML: {' '.join(str(error).split())}")]


ALLOWED_HYDRA = ("run", "sweep")
"""Keys of Hydra's own configuration that a user's file may set: where outputs go."""


def _forbidden(content: Any, interpolation: bool, where: str = "") -> Iterator[tuple[str, str]]:
    """Everything in a file's content that it must not hold; ``interpolation`` refuses ``${…}`` of any kind too."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            place = f"{where}.{key}" if where else str(key)
            if key == "_target_":
                yield place, "_target_ is refused: names resolve in the registry only"
            elif str(key) == "hydra" and isinstance(value, Mapping):
                bad = [str(name) for name in value if name not in ALLOWED_HYDRA]
                if bad:
                    yield (
                        place,
                        f"a file may set hydra.{' and hydra.'.join(ALLOWED_HYDRA)} only, not {listed(bad)}",
                    )
            elif "hydra/" in str(key) or str(key).startswith("hydra."):
                yield place, "a file must not change Hydra's own configuration"
            else:
                yield from _forbidden(value, interpolation, place)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _forbidden(value, interpolation, f"{where}[{index}]")
    elif isinstance(content, str):
        if "hydra/" in content and where.startswith("defaults"):
            yield where, "a file must not change Hydra's own configuration"
        if "${" in content and (interpolation or "env" in content):
            yield (
                where,
                "interpolation of the environment is refused" if not interpolation else "${…} is refused here",
            )
