"""The space of a sweep: which groups and keys are searched, and what counts under which options.

Options of whole groups are chosen first: each combination is a structure. What else is searched depends on it: a key
counts where the chosen option has it, and an option's own ``search:`` node where it is chosen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution

from sweepvi import config, registry
from sweepvi.config import Composition
from sweepvi.errors import Problem
from sweepvi.sweep.grammar import Domain, domains_of

Compose: TypeAlias = Callable[[Sequence[str]], Composition]
"""Composes the configuration of overrides, one value each."""

Config: TypeAlias = dict[str, dict[str, Any]]
"""A node for every group of a fit; plain data."""


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched, under Optuna's name for it."""

    name: str
    domain: Domain

    @property
    def key(self) -> str:
        """The group, or the key in full: ``optimizer`` or ``optimizer.lr``."""
        return self.domain.key

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws from; over primitive data."""
        return self.domain.distribution

    def value(self, suggested: Any) -> Any:
        """The plain data that Optuna's suggestion stands for."""
        return self.domain.value(suggested)


@dataclass(frozen=True)
class Structure:
    """The configuration of one combination of options, and what else is searched there."""

    nodes: Config
    """As composed, without what is searched."""
    dimensions: tuple[Dimension, ...]
    """In the order of the command line, ``sweep.space``, and the options' own nodes."""
    overrides: tuple[str, ...]
    """What composes it."""
    composition: Composition
    problems: tuple[Problem, ...] = ()

    @cached_property
    def searched(self) -> set[str]:
        """The groups in which keys are searched."""
        return {one.key.partition(".")[0] for one in self.dimensions}

    @cached_property
    def complete(self) -> Config:
        """The nodes of the other groups, with every default, as a recipe's configuration has them."""
        return {group: complete_node(group, node) for group, node in self.nodes.items() if group not in self.searched}

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """The nodes with values of keys; those of other groups are the structure's own, not to be changed."""
        nodes: Config = dict(self.nodes)
        for key in values:
            group = key.partition(".")[0]
            if isinstance(nodes[group], Mapping):
                nodes[group] = copied(self.nodes[group])
        for key, value in values.items():
            put(nodes, key, value)
        return nodes

    def first_values(self) -> dict[str, Any]:
        """A value of each key: the first that is checked."""
        return {dimension.key: dimension.domain.ends()[0] for dimension in self.dimensions}


def chosen_text(group: str, option: Any) -> str:
    """The override that chooses an option; None is a choice of none."""
    return f"{group}={'null' if option is None else option}"


def complete_node(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A group's node with every default; ``ConfigError`` if it describes no component."""
    if node["name"] == registry.GIVEN:
        return dict(node)
    return registry.described(node["name"], registry.build(group, node))


def copied(node: Any) -> Any:
    """A copy of plain data."""
    if isinstance(node, dict):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def put(nodes: Config, key: str, value: Any) -> None:
    """Set a key, given in full, in place; ``ValueError`` within what has no keys."""
    *path, last = key.split(".")
    node: Any = nodes
    for name in path:
        if node.get(name) is None:
            node[name] = {}
        node = node[name]
        if not isinstance(node, dict):
            raise ValueError(f"{key.rpartition('.')[0]} has no keys of its own")
    node[last] = copied(value)


def value_at(nodes: Mapping[str, Any], key: str) -> Any:
    """The value of a key, given in full; ``KeyError`` if there is none."""
    node: Any = nodes
    for name in key.split("."):
        if not isinstance(node, Mapping):
            raise KeyError(key)
        node = node[name]
    return node


@dataclass
class Space:
    """All structures, composed when they are needed.

    Attributes:
        compose: composes overrides.
        fixed: the overrides that search nothing.
        choices: whole groups that are searched.
        keys: keys that are searched wherever an option has them.
        with_searches: whether the options' own ``search:`` nodes count.
        data: hashes of the data that are fitted, as far as they have been loaded.

    """

    compose: Compose
    fixed: Sequence[str]
    choices: Sequence[Domain]
    keys: Sequence[Domain]
    with_searches: bool
    data: set[str] = field(default_factory=set)
    _structures: dict[tuple[Any, ...], Structure] = field(default_factory=dict)
    _nodes: dict[tuple[str, str], tuple[dict[str, Any], Any]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many structures there are."""
        return math.prod(len(choice.values or ()) for choice in self.choices)

    def structures(self) -> Iterator[dict[str, Any]]:
        """The options of every structure: first as few as have each option once, then the rest, in Hydra's order."""
        groups = [choice.key for choice in self.choices]
        lists = [choice.values or () for choice in self.choices]
        covering = [
            tuple(values[place % len(values)] for values in lists) for place in range(max(map(len, lists), default=1))
        ]
        for chosen in dict.fromkeys(itertools.chain(covering, itertools.product(*lists))):
            yield dict(zip(groups, chosen, strict=True))

    def covering(self) -> list[dict[str, Any]]:
        """As few structures as have each option once."""
        most = max((len(choice.values or ()) for choice in self.choices), default=1)
        return list(itertools.islice(self.structures(), most))

    def structure(self, chosen: Mapping[str, Any]) -> Structure:
        """The structure of the options chosen: group → option."""
        key = tuple(chosen[choice.key] for choice in self.choices)
        if key not in self._structures:
            self._structures[key] = self._made(dict(zip([choice.key for choice in self.choices], key, strict=True)))
        return self._structures[key]

    def _made(self, chosen: Mapping[str, Any]) -> Structure:
        # Paths to code must be known to the composition: it takes them from the command line only.
        code = {f"{group}.{name}" for group, names in config.CODE_KEYS.items() for name in names}
        paths = [f"{domain.key}={(domain.values or ('',))[0]}" for domain in self.keys if domain.key in code]
        overrides = [*self.fixed, *(chosen_text(*choice) for choice in chosen.items()), *paths]
        made = self._assembled(chosen) or self.compose(overrides)
        if self._separable and not made.problems and not made.interpolated:
            for group, option in chosen.items():
                self._nodes.setdefault((group, option), (made.config[group], made.searches.get(group)))
        dimensions, problems = self._dimensions(made, chosen)
        return Structure(made.config, tuple(dimensions), tuple(overrides), made, (*made.problems, *problems))

    @cached_property
    def _separable(self) -> bool:
        """Whether an option decides its own group's node and nothing else: shipped options do."""
        return all(
            choice.key not in config.SELECTIONS and set(choice.values or ()) <= set(config.options(choice.key))
            for choice in self.choices
        )

    def _assembled(self, chosen: Mapping[str, Any]) -> Composition | None:
        """The composition, made of the nodes of others, if each option was composed before."""
        nodes = [self._nodes.get(choice) for choice in chosen.items()]
        if not nodes or not self._structures or None in nodes:
            return None
        first = next(iter(self._structures.values())).composition
        made = replace(first, config=dict(first.config), searches=dict(first.searches))
        for group, found in zip(chosen, nodes, strict=True):
            assert found is not None
            made.config[group], search = found
            made.searches.pop(group, None)
            if search is not None:
                made.searches[group] = search
        return made

    def _dimensions(self, made: Composition, chosen: Mapping[str, Any]) -> tuple[list[Dimension], list[Problem]]:
        found = [Dimension(domain.key, domain) for domain in self.keys if has_key(made.config, domain.key)]
        problems: list[Problem] = []
        if not self.with_searches:
            return found, problems
        known = [domain.key for domain in self.keys] + [text.lstrip("+~").partition("=")[0] for text in self.fixed]
        several = any(choice.key in config.SELECTIONS for choice in self.choices)
        for group, node in made.searches.items():
            where = f"{group}.{config.SEARCH}"
            if not isinstance(node, Mapping):
                if node is not None:
                    problems.append(Problem.of(where, node, "must be a mapping from key to what to search"))
                continue
            texts = {name: text for name, text in node.items() if not _among(f"{group}.{name}", known)}
            option = chosen.get(group) or made.hydra.runtime.choices[group]
            for domain in domains_of(texts, where, {}, prefix=f"{group}."):
                if isinstance(domain, Problem):
                    problems.append(domain)
                    continue
                varies = several or any(choice.key == group for choice in self.choices)
                found.append(Dimension(f"{domain.key} ({option})" if varies else domain.key, domain))
        return found, problems


def _among(key: str, others: Sequence[str]) -> bool:
    """Whether a key, or one that it is part of or that is part of it, is among others."""
    return any(
        f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in others if "." in other
    )


def has_key(nodes: Mapping[str, Any], key: str) -> bool:
    """Whether the component that a group's node names has a key, or the first of keys within keys."""
    group, _, name = key.partition(".")
    node = nodes.get(group)
    named = node.get("name") if isinstance(node, Mapping) else None
    rows = [row for row in registry.rows(group) if row.name == named]
    return any(spec.name == name.partition(".")[0] for row in rows for spec in row.specs())
