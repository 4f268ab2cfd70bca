"""What is to be measured: estimators, each with every number of particles that it can have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeAlias

from sweepvi import registry
from sweepvi.errors import ConfigError, Problem, raise_if, unique
from sweepvi.estimators import Estimator
from sweepvi.keys import Key, Keyed
from sweepvi.loading import path_of

Specification: TypeAlias = str | Mapping[str, Any] | Estimator
"""An estimator as its name, as ``{"name": …, key: value}``, or as an object."""

PARTICLES = "num_particles"


@dataclass(frozen=True)
class Plan(Keyed):
    """Numbers of particles to measure with, and how often."""

    particles: Annotated[tuple[int, ...], Key("draws averaged in each gradient", ge=1)] = (1, 10)
    draws: Annotated[int, Key("gradients measured for each row", ge=2)] = 200
    warmup: Annotated[int, Key("gradients computed before, on which baselines settle", ge=0)] = 50

    def conflicts(self) -> dict[str, str]:
        """No number of particles at all."""
        return {} if self.particles else {"particles": "name at least one number of particles"}


@dataclass(frozen=True)
class LeftOut:
    """What is not measured, and why."""

    estimator: str
    """Its name, with what is set differently from its defaults."""
    particles: int
    reason: str


def chosen(specifications: Sequence[Specification], particles: Sequence[int]) -> tuple[list[Estimator], list[LeftOut]]:
    """The estimators of a list, with their particles; ``ConfigError`` with all that is wrong with it.

    A mapping that says its number of particles has that one only.
    """
    found: list[Estimator] = []
    left_out: list[LeftOut] = []
    problems: list[Problem] = []
    for place, specification in enumerate(specifications):
        try:
            estimator = _made(specification)
        except ConfigError as error:
            where = f"estimators[{place}]"
            problems += [replace(p, key=p.key.replace("estimator", where, 1)) for p in error.problems]
            continue
        own = isinstance(specification, Mapping) and PARTICLES in specification
        possible, impossible = _with_particles(estimator, [estimator.num_particles] if own else particles)
        found += possible
        left_out += impossible
    raise_if(problems)
    return _distinct(found), left_out


def everything(configured: Estimator, particles: Sequence[int]) -> tuple[list[Estimator], list[LeftOut]]:
    """Every registered estimator as it is by default, after the one that is configured.

    The configured one has its own number of particles, too.
    """
    first, _ = _with_particles(configured, [configured.num_particles, *particles])
    rest, left_out = chosen(registry.names("estimator"), particles)
    return _distinct([*first, *rest]), left_out


def label_of(estimator: Estimator) -> str:
    """An estimator's name, and the keys that are not at their defaults: ``trace_graph(baseline_beta=0.99)``."""
    name = registry.name_of("estimator", estimator) or type(estimator).__qualname__.rpartition(".")[2]
    defaults = {spec.name: spec.default for spec in registry.keys_of(type(estimator))}
    node = registry.described(name, estimator)
    changed = [
        f"{key}={_text(node[key])}"
        for key, default in defaults.items()
        if key != PARTICLES and getattr(estimator, key) != default
    ]
    return f"{name}({', '.join(changed)})" if changed else name


def words_of(label: str, particles: int) -> str:
    """An estimator in words: ``trace with 10 particles``."""
    return f"{label} with {particles} particle{'s' if particles > 1 else ''}"


def node_of(estimator: Estimator) -> dict[str, Any]:
    """The complete configuration of an estimator, as plain data; of one that is not registered, what it is too."""
    name = registry.name_of("estimator", estimator)
    if name:
        return registry.described(name, estimator)
    return registry.described(registry.GIVEN, estimator) | {"object": path_of(estimator)}


def _made(specification: Specification) -> Estimator:
    if isinstance(specification, Estimator):
        return specification
    if isinstance(specification, str | Mapping):
        return registry.build("estimator", {"name": specification} if isinstance(specification, str) else specification)
    message = "must be a name, a mapping with a name, or an estimator"
    raise ConfigError([Problem.of("estimator", specification, message)])


def _with_particles(estimator: Estimator, particles: Sequence[int]) -> tuple[list[Estimator], list[LeftOut]]:
    possible, impossible = [], []
    for number in particles:
        try:
            possible.append(replace(estimator, **{PARTICLES: number}))
        except ConfigError as error:
            reason = "; ".join(f"{PARTICLES} {problem.message}" for problem in unique(error.problems))
            impossible.append(LeftOut(label_of(estimator), number, reason))
    return possible, impossible


def _distinct(estimators: Iterable[Estimator]) -> list[Estimator]:
    distinct: list[Estimator] = []
    for estimator in estimators:
        if estimator not in distinct:
            distinct.append(estimator)
    return distinct


def _text(value: Any) -> str:
    return json.dumps(value, default=str).replace('"', "")
