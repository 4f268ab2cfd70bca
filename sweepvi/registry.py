"""Names → components: the only place that resolves names.

A component is one row below: its group, its name, and where its class is. Keys, types, ranges, defaults and meanings
are read off the class (:mod:`sweepvi.keys`), when they are needed: importing this module imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweepvi.errors import Problem, raise_if, unknown
from sweepvi.keys import KeySpec, construct, keys_of

GROUPS = ("model", "guide", "estimator", "optimizer", "scheduler", "partition", "engine")
"""The config groups that name components, in the order in which they are shown."""


@dataclass(frozen=True)
class Row:
    """A component: group, name, and ``module:Class``."""

    group: str
    name: str
    target: str

    def component(self) -> type:
        """The component's class; imports its module."""
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def meaning(self) -> str:
        """The first line of the class's docstring."""
        return (self.component().__doc__ or "").strip().splitlines()[0]

    def specs(self) -> tuple[KeySpec, ...]:
        """The component's keys."""
        return keys_of(self.component())


_ROWS: dict[tuple[str, str], Row] = {}


def register(group: str, name: str, target: str) -> None:
    """Add a component, as ``"module:Class"``; ``ValueError`` if the group does not exist or the name is taken."""
    if group not in GROUPS:
        raise ValueError(unknown("group", group, GROUPS))
    if (group, name) in _ROWS:
        raise ValueError(f"{group}={name} is registered already, as {_ROWS[group, name].target}")
    _ROWS[group, name] = Row(group, name, target)


for _group, _name, _target in (
    ("model", "radon", "sweepvi.models.radon:Radon"),
    ("model", "eight_schools", "sweepvi.models.eight_schools:EightSchools"),
    ("model", "custom", "sweepvi.models.custom:CustomModel"),
    ("guide", "auto_normal", "sweepvi.guides.auto_normal:AutoNormal"),
    ("guide", "auto_diagonal_normal", "sweepvi.guides.auto_diagonal_normal:AutoDiagonalNormal"),
    ("guide", "auto_multivariate_normal", "sweepvi.guides.auto_multivariate_normal:AutoMultivariateNormal"),
    (
        "guide",
        "auto_low_rank_multivariate_normal",
        "sweepvi.guides.auto_low_rank_multivariate_normal:AutoLowRankMultivariateNormal",
    ),
    ("guide", "auto_delta", "sweepvi.guides.auto_delta:AutoDelta"),
    ("guide", "auto_iaf_normal", "sweepvi.guides.auto_iaf_normal:AutoIAFNormal"),
    ("guide", "custom", "sweepvi.guides.custom:CustomGuide"),
    ("estimator", "trace", "sweepvi.estimators.trace:Trace"),
    ("estimator", "trace_graph", "sweepvi.estimators.trace_graph:TraceGraph"),
    ("optimizer", "clipped_adam", "sweepvi.optim.clipped_adam:ClippedAdamRule"),
    ("optimizer", "adam", "sweepvi.optim.adam:AdamRule"),
    ("optimizer", "adamw", "sweepvi.optim.adamw:AdamWRule"),
    ("optimizer", "sgd", "sweepvi.optim.sgd:SGDRule"),
    ("optimizer", "rmsprop", "sweepvi.optim.rmsprop:RMSpropRule"),
    ("scheduler", "constant", "sweepvi.schedule.constant:Constant"),
    ("scheduler", "exponential", "sweepvi.schedule.exponential:Exponential"),
    ("partition", "single", "sweepvi.partition:Single"),
    ("engine", "eager", "sweepvi.settings:Settings"),
):
    register(_group, _name, _target)


def rows(group: str | None = None) -> list[Row]:
    """All components, or those of one group, in the order of registration."""
    return [row for row in _ROWS.values() if group in (None, row.group)]


def names(group: str) -> list[str]:
    """The names in a group."""
    return [row.name for row in rows(group)]


def check(group: str, node: Any) -> list[Problem]:
    """Everything wrong with a group's node, ``{"name": …, key: value, …}``."""
    if not isinstance(node, Mapping) or "name" not in node:
        return [Problem.of(group, node, f"must be a mapping with a name, one of {', '.join(names(group))}")]
    row = _ROWS.get((group, str(node["name"])))
    if row is None:
        return [Problem.of(f"{group}.name", node["name"], unknown(group, str(node["name"]), names(group)))]
    return _construct(row, group, node)[1]


def build(group: str, node: Mapping[str, Any]) -> Any:
    """The component that a node describes; ``ConfigError`` with every problem if it describes none."""
    raise_if(check(group, node))
    return _construct(_ROWS[group, str(node["name"])], group, node)[0]


def _construct(row: Row, group: str, node: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    values = {key: value for key, value in node.items() if key != "name"}
    return construct(row.component(), values, group)


def described(name: str, component: Any) -> dict[str, Any]:
    """The complete node of a component: its name and the value of every key, as plain data."""
    node: dict[str, Any] = {"name": name}
    for spec in keys_of(type(component)):
        value = getattr(component, spec.name)
        node[spec.name] = list(value) if isinstance(value, tuple) else value
    return node


def name_of(group: str, component: Any) -> str | None:
    """The registered name of a component's class, or None."""
    target = f"{type(component).__module__}:{type(component).__qualname__}"
    return next((row.name for row in rows(group) if row.target == target), None)
