"""Overrides → configuration, with every problem on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.config.by_hydra import by_hydra, said
from sweepvi.config.locate import CODE_KEYS, SEARCH, SELECTIONS, SWEEPING, options, selected_by
from sweepvi.errors import Problem

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class Composition:
    """What a command line comes to."""

    config: dict[str, Any] = field(default_factory=dict)
    """A node for every group of a fit, resolved; plain data."""
    sweeping: dict[str, Any] = field(default_factory=dict)
    """The nodes of the groups that say how many fits are run."""
    searches: dict[str, Any] = field(default_factory=dict)
    """What the chosen options say about searching them: group → the node of their files, unchecked."""
    interpolated: bool = False
    """Whether a value of a fit's configuration refers to another."""
    preset: str | None = None
    """The chosen preset."""
    named: list[str] = field(default_factory=list)
    """Groups that are chosen and keys that are set on the command line, to whatever value."""
    hydra: Any = None
    """Hydra's own configuration, an OmegaConf node; None if there is none."""
    overrides: list[str] = field(default_factory=list)
    """The overrides to give Hydra: an earlier run's, and then ``given``."""
    given: list[str] = field(default_factory=list)
    """The command line's, as Hydra can take them."""
    problems: list[Problem] = field(default_factory=list)


def compose(
    overrides: Iterable[str],
    extra: Path | None = None,
    base: Mapping[str, Any] | None = None,
    trusted: bool = True,
) -> Composition:
    """Compose a configuration.

    Args:
        overrides: Hydra overrides, ``group=option`` and ``group.key=value``, one value each.
        extra: the user's configuration folder.
        base: an earlier run's configuration, valid, to start from in place of the shipped defaults.
        trusted: whether ``extra`` has been scanned and found harmless; if not, its files are not read, and choices
            of its options are passed over.

    Returns:
        The configuration as far as it can be composed, with every problem found on the way.

    """
    from sweepvi.config.overrides import Overrides, base_texts

    read = Overrides(list(overrides), extra)
    given = base_texts(base, read.selected) if base else []
    made = Composition(overrides=[*given, *read.texts], given=read.texts, problems=read.problems)
    made.named = [*read.selected, *read.values]
    chosen = {group: option for group, option in read.selected.items() if option is not None}
    if not trusted:
        chosen = {group: option for group, option in chosen.items() if option in options(group)}
    search = [f"hydra.searchpath=[{_path_text(extra)}]"] if extra and trusted else []
    composed = _composed([*search, *given, *map("=".join, chosen.items())], [*read.hydra, *read.deleted], made.problems)
    if composed is not None:
        made.hydra = composed.hydra
        made.preset = composed.hydra.runtime.choices.get("preset")
        made.config, made.interpolated = _resolved(composed, read.values, made.problems)
        if made.preset is not None and (own := read.selected.keys() - {*SELECTIONS, *SWEEPING}):
            made.config |= _without_preset(own, [*search, *given], chosen, read.values)
        made.problems += [*_stray_code(made.config, read.values), *_unpackaged(made.config)]
        made.problems += _chosen_twice(chosen, extra)
        for group in SELECTIONS:
            made.config.pop(group, None)
        made.sweeping = {group: made.config.pop(group) for group in SWEEPING if group in made.config}
        nodes = {group: node for group, node in made.config.items() if isinstance(node, dict)}
        made.searches = {group: node.pop(SEARCH) for group, node in nodes.items() if SEARCH in node}
    return made


def _without_preset(
    groups: Iterable[str], sure: list[str], chosen: Mapping[str, str], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Nodes of groups whose option is chosen beside a preset: what the preset sets is for the option that it has."""
    kept = ["=".join(choice) for choice in chosen.items() if choice[0] != "preset"]
    composed = _composed([*sure, *kept, "preset=none"], [], [])
    if composed is None:
        return {}
    plain, _ = _resolved(composed, values, [])
    return {group: plain[group] for group in groups if group in plain}


def _path_text(folder: Path) -> str:
    from sweepvi.config.overrides import quoted

    return quoted(f"file://{folder.resolve()}")


def _composed(sure: list[str], unsure: list[str], problems: list[Problem]) -> DictConfig | None:
    """Compose by Hydra; if an override in ``unsure`` stands in the way, say which, and go on without it."""
    whole = by_hydra([*sure, *unsure])
    if not isinstance(whole, Problem):
        return whole
    refused = {text: found for text in unsure if isinstance(found := by_hydra([*sure, text]), Problem)}
    problems += [Problem(text, problem.message) for text, problem in refused.items()] or [whole]
    rest = by_hydra([*sure, *(text for text in unsure if text not in refused)])
    if isinstance(rest, Problem):
        problems += [rest] if refused else []
        return None
    return rest


def _resolved(composed: DictConfig, values: Mapping[str, Any], problems: list[Problem]) -> tuple[dict[str, Any], bool]:
    """Set the values, and resolve; what cannot be resolved is a problem and left out. Whether there was any to."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    with open_dict(config):
        for key, value in values.items():
            if (problem := _keyless(config, key, value)) is not None:
                problems.append(problem)
            else:
                OmegaConf.update(config, key, value, merge=False, force_add=True)
        interpolated = "${" in repr(OmegaConf.to_container(config, resolve=False))
        while True:
            try:
                plain = OmegaConf.to_container(config, resolve=True)
                assert isinstance(plain, dict)
                return {str(key): value for key, value in plain.items()}, interpolated
            except OmegaConfBaseException as error:
                key = str(error.full_key or "")
                problems.append(Problem(key or "configuration", said(error)))
                if not key or OmegaConf.is_missing(config, key):
                    return {}, interpolated
                OmegaConf.update(config, key, "???", merge=False)


def _keyless(config: DictConfig, key: str, value: Any) -> Problem | None:
    """The problem of a key within what has no keys."""
    from omegaconf import DictConfig, OmegaConf

    path = key.split(".")
    for end in range(2, len(path)):
        parent = ".".join(path[:end])
        node = OmegaConf.select(config, parent)
        if node is not None and not isinstance(node, DictConfig):
            return Problem.of(key, value, f"{parent} has no keys of its own")
    return None


def _chosen_twice(chosen: Mapping[str, str], extra: Path | None) -> list[Problem]:
    """Groups of which preset and experiment choose different options, where the command line does not decide."""
    if not {*SELECTIONS} <= chosen.keys():
        return []
    one, other = (selected_by(group, chosen[group], extra) for group in SELECTIONS)
    return [
        Problem.of(
            "preset",
            chosen["preset"],
            f"chooses {group}={one[group]}, and experiment={chosen['experiment']} chooses {group}={other[group]}; "
            f"say which",
        )
        for group in one
        if group in other and group not in chosen and one[group] != other[group]
    ]


def _stray_code(config: Mapping[str, Any], values: Mapping[str, Any]) -> list[Problem]:
    """Python paths that only a file gives, and those that nothing asks for."""
    problems = []
    for group, names in CODE_KEYS.items():
        node = config.get(group)
        if not isinstance(node, dict):
            continue
        for name in names:
            key, value = f"{group}.{name}", node.get(name)
            if key in values and node.get("name") != "custom":
                problems.append(Problem.of(key, node.pop(name), f"belongs to {group}=custom; add {group}=custom"))
            elif key not in values and value not in (None, "???"):
                problems.append(
                    Problem.of(key, value, f"a file alone never runs code; give it on the command line: {key}={value}")
                )
    return problems


def _unpackaged(config: Mapping[str, Any]) -> list[Problem]:
    message = "its file must begin with the line '# @package _global_'"
    return [Problem(group, message) for group in SELECTIONS if config.get(group)]
