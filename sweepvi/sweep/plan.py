"""What a sweep is to run: the space, the settings, and the configuration of every point."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweepvi import registry
from sweepvi.config.overrides import quoted
from sweepvi.errors import Problem, raise_if
from sweepvi.sweep.grammar import Domain
from sweepvi.sweep.settings import SweepSettings, WorkerSettings
from sweepvi.sweep.space import Config, Dimension, Space, Structure, complete_node, copied, value_at

WATCHING = ("log_every", "checkpoint_every", "threads", "memory", "restarts")
"""Keys of ``engine`` that change no trial."""

DECISIVE = ("sampler", "seed", "pruner", "reduction", "rungs", "rung_draws", "seeds", "objective", "target")
"""Keys of ``sweep`` that decide what is proposed and how it is compared: another value is another study."""


@dataclass
class Plan:
    """A sweep, checked and ready to run.

    Attributes:
        settings: how it is run.
        workers: by which processes.
        grid: whether it is every combination, once; else, trials are sampled.
        choices: whole groups that are searched.
        given: objects that stand for a group's component, ``{group: object}`` as pickled by cloudpickle; None from the
            command line.
        overrides: what the command line sets and does not search.

    """

    settings: SweepSettings
    workers: WorkerSettings
    grid: bool
    choices: list[Dimension]
    given: bytes | None = None
    overrides: list[str] = field(default_factory=list)
    _space: Space = field(kw_only=True, repr=False)
    _domains: list[Domain] = field(kw_only=True, repr=False)
    """All that the command line and ``sweep.space`` search, in their order."""

    def dimensions(self, chosen: Mapping[str, Any]) -> list[Dimension]:
        """The keys that are searched where these options are chosen (group → option), in a fixed order."""
        return list(self._space.structure(chosen).dimensions)

    def configuration(self, params: Mapping[str, Any]) -> Config:
        """The complete configuration of a trial: a node for every group, with every default.

        Args:
            params: Optuna's name → suggested value, of all choices and of the keys that count under them.

        Raises:
            ConfigError: if the values, each valid alone, do not go together.

        """
        structure = self._structure(params)
        values = {one.key: one.value(params[one.name]) for one in structure.dimensions}
        if structure.composition.interpolated:
            # Values that refer to others follow them, and only a composition knows how.
            return self._composed(structure, values)
        return _complete(structure, values)

    def _structure(self, params: Mapping[str, Any]) -> Structure:
        return self._space.structure({choice.key: choice.value(params[choice.name]) for choice in self.choices})

    def _composed(self, structure: Structure, values: Mapping[str, Any]) -> Config:
        made = self._space.compose([*structure.overrides, *(f"{key}={quoted(of)}" for key, of in values.items())])
        raise_if(made.problems)
        return {group: _alone(group, complete_node(group, node)) for group, node in made.config.items()}

    def points(self) -> list[dict[str, Any]]:
        """The params of every point of a grid, in Hydra's order: what comes first on the command line varies slowest.

        Shuffled values come in an order that ``sweep.seed`` fixes.
        """
        places = {domain.key: place for place, domain in enumerate(self._domains)}
        ordered = {domain.key: list(enumerate(self._suggestions(domain))) for domain in self._domains}
        found: list[tuple[list[int], dict[str, Any]]] = []
        for chosen in self._space.structures():
            fixed = {choice.key: choice.domain.suggestion(chosen[choice.key]) for choice in self.choices}
            own = [*self.choices, *self._space.structure(chosen).dimensions]
            lists = [[pair for pair in ordered[one.key] if pair[1] == fixed.get(one.key, pair[1])] for one in own]
            for pairs in itertools.product(*lists):
                ranks, params = [0] * len(places), {}
                for one, (rank, suggestion) in zip(own, pairs, strict=True):
                    params[one.name], ranks[places[one.key]] = suggestion, rank
                found.append((ranks, params))
        found.sort(key=lambda point: point[0])
        return [params for _, params in found[: self.settings.n_trials]]

    def _suggestions(self, domain: Domain) -> list[Any]:
        """All values of a domain as Optuna has them, in the order in which a grid takes them."""
        values = [domain.suggestion(value) for value in domain.values or ()]
        if domain.shuffled:
            random.Random(self.settings.seed).shuffle(values)
        return values

    def identity(self) -> dict[str, Any]:
        """What makes this study the one it is, as plain data: another identity is another study."""
        structures = [self._space.structure(chosen) for chosen in self._space.covering()]
        bases = [_base(structure) for structure in structures]
        nodes: dict[str, Any] = {}
        for group in registry.GROUPS:
            distinct: list[Any] = []
            for base in bases:
                if base[group] not in distinct:
                    distinct.append(base[group])
            nodes[group] = distinct[0] if len(distinct) == 1 else distinct
        searched = {one.name: one.domain.text for structure in structures for one in structure.dimensions}
        settings = {key: _listed(getattr(self.settings, key)) for key in DECISIVE}
        return {
            "configuration": nodes,
            "space": {choice.name: list(choice.domain.values or ()) for choice in self.choices} | searched,
            "data": sorted(self._space.data),
            "grid": self.grid,
            "sweep": settings,
        }

    def defaults(self) -> dict[str, Any] | None:
        """The params of the configuration without the search, where all of them lie in the space; else None."""
        made = self._space.compose(list(self._space.fixed))
        if made.problems or made.hydra is None:
            return None
        try:
            params = {one.name: one.domain.suggestion(made.hydra.runtime.choices[one.key]) for one in self.choices}
            for one in self._structure(params).dimensions:
                params[one.name] = one.domain.suggestion(value_at(made.config, one.key))
        except (KeyError, ValueError):
            return None
        return params

    def enqueued(self) -> list[dict[str, Any]]:
        """The params of ``sweep.enqueue``, by Optuna's names; ``ConfigError`` if some are not in the space."""
        found, problems = [], []
        for place, given in enumerate(self.settings.enqueue):
            params = {}
            known = {choice.key: choice for choice in self.choices}
            try:
                chosen = {
                    choice.key: given.get(choice.key, (choice.domain.values or ("",))[0]) for choice in self.choices
                }
                for choice in self.choices:
                    choice.domain.suggestion(chosen[choice.key])
                known |= {one.key: one for one in self.dimensions(chosen)}
            except ValueError:
                pass
            for key, value in given.items():
                where = f"sweep.enqueue.{place}.{key}"
                if key not in known:
                    problems.append(Problem.of(where, value, f"is not searched; searched are {', '.join(known)}"))
                    continue
                try:
                    params[known[key].name] = known[key].domain.suggestion(value)
                except ValueError:
                    problems.append(Problem.of(where, value, f"is not in the space: {known[key].domain.text}"))
            found.append(params)
        raise_if(problems)
        return found


def _base(structure: Structure) -> Config:
    """The structure's configuration without what is searched, and without what changes no trial."""
    nodes = _complete(structure, structure.first_values())
    for key in [*(one.key for one in structure.dimensions), *(f"engine.{name}" for name in WATCHING)]:
        parent, _, name = key.rpartition(".")
        value_at(nodes, parent).pop(name, None)
    return nodes


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _complete(structure: Structure, values: Mapping[str, Any]) -> Config:
    """The structure's configuration with values; only groups that they touch are built anew."""
    nodes = structure.with_values(values)
    return {
        group: _alone(group, complete_node(group, node) if group in structure.searched else structure.complete[group])
        for group, node in nodes.items()
    }


def _alone(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """A copy of a node for one fit: no restarts."""
    return {**copied(node), "restarts": 1} if group == "engine" and "restarts" in node else copied(node)
