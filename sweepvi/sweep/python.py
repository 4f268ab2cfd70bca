"""The plan of a Python call: what ``sweepvi.tune`` searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np

from sweepvi import api, config, registry
from sweepvi.config import Composition
from sweepvi.config.overrides import quoted
from sweepvi.errors import ConfigError, Problem, raise_if
from sweepvi.loading import described
from sweepvi.sweep.grammar import domain_of
from sweepvi.sweep.plan import Plan
from sweepvi.sweep.planning import planned


def plan_from_python(
    model: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    space: Mapping[str, Any],
    sweep: Mapping[str, Any] | None = None,
    workers: Mapping[str, Any] | None = None,
    **components: Any,
) -> Plan:
    """The plan of a Python call, checked as :func:`plan_of` does.

    Args:
        model: as for :func:`sweepvi.fit`, like the next two.
        args: positional arguments of model and guide.
        kwargs: keyword arguments of model and guide.
        space: group or key → what to search: text as on the command line, or a list of values.
        sweep: keys of the ``sweep`` group; ``name`` is that of a ready one.
        workers: keys of the ``workers`` group.
        **components: a specification for every other group, as for :func:`sweepvi.fit`.

    Raises:
        ConfigError: with everything that is wrong.

    """
    nodes, given, problems = api.specified(model, args, kwargs, **components)
    # What nobody has chosen is the configuration's default, and not a choice.
    said = {"model", *components} - given.keys()
    fixed = [text for group, node in nodes.items() if group in said for text in _texts(group, node)]
    sweep = dict(sweep or {})
    fixed.append(f"sweep={sweep.pop('name', 'default')}")
    for group, keys in (("sweep", sweep), ("workers", workers)):
        fixed += [f"++{group}.{key}={quoted(value)}" for key, value in (keys or {}).items()]
    for key, value in space.items():
        group = key.partition(".")[0]
        if group in given:
            problems.append(Problem(key, f"cannot be searched: {group} is a Python object; give it by name"))
        elif _searches_nothing(key, value):
            message = "searches nothing; give a list of values, or text such as interval(0.1, 1)"
            problems.append(Problem.of(key, value, message))
    raise_if(problems)

    def compose(overrides: Sequence[str]) -> Composition:
        made = config.compose(overrides)
        for group in given:
            made.config[group] = dict(nodes[group])
            made.searches.pop(group, None)
        return made

    searched = [f"{key}={_searched_text(value)}" for key, value in space.items()]
    plan = planned([*fixed, *searched], compose, None, given)
    return replace(plan, given=_pickled(given)) if given else plan


def _texts(group: str, node: Mapping[str, Any]) -> list[str]:
    """A node as overrides."""
    rows = [row for row in registry.rows(group) if row.name == node.get("name")]
    kinds = {spec.name: spec.key.component for row in rows for spec in row.specs()}
    plain = {key: registry.plain(value, kinds.get(key, "")) for key, value in node.items() if key != "name"}
    chosen = [f"{group}={node['name']}"] if "name" in node else []
    return [*chosen, *(f"++{group}.{key}={quoted(value)}" for key, value in plain.items())]


def _searched_text(value: Any) -> str:
    """What to search, in the grammar."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple | range):
        return f"choice({','.join(quoted(of.item() if isinstance(of, np.generic) else of) for of in value)})"
    return value if isinstance(value, str) else quoted(value)


def _searches_nothing(key: str, value: Any) -> bool:
    try:
        return domain_of(f"{key}={_searched_text(value)}", None if "." in key else config.options(key)) is None
    except ConfigError:
        # Which is said with all other problems of the space.
        return False


def _pickled(given: Mapping[str, Any]) -> bytes:
    try:
        return cloudpickle.dumps(dict(given))
    except Exception as error:
        message = f"cannot be sent to workers: {described(error)}"
        raise ConfigError([Problem(", ".join(given), message)]) from error
