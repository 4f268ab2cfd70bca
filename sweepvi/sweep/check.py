"""What is wrong with a space, found before any trial: unknown keys, values out of range, models that do not run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from optuna.distributions import FloatDistribution

from sweepvi.errors import Problem, collected
from sweepvi.sweep.space import Config, Dimension, Space, Structure, has_key

MOST = 64
"""Structures that are checked, and fits that are tried, at most."""

DECIDING = ("model", "guide", "estimator", "engine.device", "engine.dtype")
"""Groups and keys whose values decide whether a model runs on its data at all."""


def check_space(space: Space, grid: bool, max_grid: int, given: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with a space that can be found without loading or running a model.

    Args:
        space: the space.
        grid: whether every combination is to be run.
        max_grid: how many combinations there may be.
        given: the groups whose component is a Python object.

    """
    from sweepvi import recipe

    checked = list(itertools.islice(space.structures(), MOST))
    structures = [space.structure(chosen) for chosen in checked]
    problems = [problem for structure in structures for problem in structure.problems]
    covering = [space.structure(chosen) for chosen in space.covering()]
    # A key that no option has is said of the first, with the keys that this has.
    strange = [domain for domain in space.keys if not any(has_key(one.nodes, domain.key) for one in covering)]
    if strange and structures and structures[0].nodes:
        first = structures[0]
        own = tuple(Dimension(domain.key, domain) for domain in strange)
        structures[0] = replace(first, dimensions=(*first.dimensions, *own))
    for structure in structures:
        if structure.nodes:
            problems += [*_restarts(structure), *_stop(structure)]
        for values, searched in _checked_values(structure, grid):
            config, wrong = _with_values(structure, values)
            found = wrong or recipe.check(config, given)
            problems += [_pointing(problem, searched) for problem in found]
    if grid and not problems:
        problems += _too_many(space, structures, max_grid)
    return problems


def _checked_values(structure: Structure, grid: bool) -> Iterator[tuple[dict[str, Any], Mapping[str, Dimension]]]:
    """Values of all keys together; each key's ends beside the others' first, all combinations where there is a grid.

    Values of different groups do not depend on each other, but for those of partition and optimizer.
    """
    first = structure.first_values()
    searched = {one.key: one for one in structure.dimensions}
    yield first, searched
    parts: dict[str, list[Dimension]] = {}
    for one in structure.dimensions:
        group = one.key.partition(".")[0]
        parts.setdefault("optimizer" if group == "partition" else group, []).append(one)
    for part in parts.values():
        ends = [one.domain.ends() for one in part]
        if grid and math.prod(map(len, ends)) <= 10_000:
            combinations = itertools.product(*ends)
        else:
            firsts = [values[0] for values in ends]
            combinations = ([*firsts[:k], value, *firsts[k + 1 :]] for k, of in enumerate(ends) for value in of)
        for values in combinations:
            yield {**first, **dict(zip([one.key for one in part], values, strict=True))}, searched


def _with_values(structure: Structure, values: Mapping[str, Any]) -> tuple[Config, list[Problem]]:
    try:
        return structure.with_values(values), []
    except ValueError as error:
        return {}, [Problem(str(error).partition(" has ")[0], str(error))]


def _pointing(problem: Problem, searched: Mapping[str, Dimension]) -> Problem:
    """The problem of a value within an interval: it says which one."""
    one = searched.get(problem.key)
    if one is None or one.domain.values is not None:
        return problem
    floats = isinstance(one.distribution, FloatDistribution) and "a whole number" in problem.message
    hint = f"; whole numbers are int({one.domain.text})" if floats else ""
    return replace(problem, message=f"{problem.message}; searched is {one.domain.text}{hint}")


def _restarts(structure: Structure) -> list[Problem]:
    engine = structure.nodes.get("engine")
    restarts = engine.get("restarts") if isinstance(engine, Mapping) else None
    message = "a trial is one fit; sweep.seeds says under how many seeds each is fitted"
    searched = [one.domain.text for one in structure.dimensions if one.key == "engine.restarts"]
    if restarts in (None, 1) and not searched:
        return []
    return [Problem.of("engine.restarts", searched[0] if searched else restarts, message)]


def _stop(structure: Structure) -> list[Problem]:
    stop = structure.nodes.get("stop")
    name = stop.get("name") if isinstance(stop, Mapping) else "steps"
    if name == "steps":
        return []
    return [Problem.of("stop", name, "trials are compared after equal steps, and end at engine.steps; use stop=steps")]


def _too_many(space: Space, structures: list[Structure], max_grid: int) -> list[Problem]:
    sizes = [math.prod(len(one.domain.values or ()) for one in structure.dimensions) for structure in structures]
    count = sum(sizes) if len(sizes) == space.count else space.count * max(sizes, default=1)
    if count <= max_grid:
        return []
    message = (
        f"the grid has {count:,} combinations, more than sweep.max_grid={max_grid}; set sweep.max_grid={count} "
        "if all are meant, or sweep.n_trials to sample some"
    )
    return [Problem("sweep", message)]


def run_once(space: Space, given: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the models: each structure is built and run once, and each value that decides whether it runs.

    The space must have passed :func:`check_space`; it is told of the data.
    """
    from sweepvi import engine, recipe

    def run(structure: Structure, values: Mapping[str, Any]) -> None:
        made = recipe.build(structure.with_values(values), given)
        space.data.add(recipe.data_hash(made))
        engine.trial_run(made)

    tasks = []
    for chosen in itertools.islice(space.structures(), MOST):
        structure = space.structure(chosen)
        first = structure.first_values()
        tasks.append(partial(run, structure, first))
        for one in structure.dimensions:
            if one.key.startswith(tuple(f"{group}." for group in DECIDING[:3])) or one.key in DECIDING:
                tasks += [partial(run, structure, {**first, one.key: value}) for value in one.domain.ends()[1:]]
    return collected(*tasks[:MOST])[1]
