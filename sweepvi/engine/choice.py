"""Which engine runs which fits."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from sweepvi.distributed import Alone, Ranks
from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.eager_fit import eager_fit
from sweepvi.engine.fits import Fits
from sweepvi.engine.frozen.fits import frozen_fits
from sweepvi.engine.lanes.captured import NotCapturedError
from sweepvi.engine.lanes.lane_run import lane_fits
from sweepvi.errors import ConfigError, Problem
from sweepvi.optim import Minimizer
from sweepvi.recipe import Recipe
from sweepvi.settings import AutoSettings, LaneSettings

WORTH_CAPTURING = 100
"""Steps below which a lone fit under ``engine=auto`` runs eagerly: capturing takes as long as some hundred steps."""

OWN_TO_A_LANE = ("seed", "steps", "on_nonfinite", "restarts")
"""Keys of ``engine`` in which the lanes of one program may differ."""

WATCHING = ("log_every", "checkpoint_every", "threads", "memory")
"""Keys of ``engine`` that change no fit: those of the first lane count."""


def fits_of(
    recipes: Sequence[Recipe], snapshot: Snapshot | None, ranks: Ranks
) -> Generator[tuple[list[int], Fits], None, None]:
    """Fits at their first step, with the places of their recipes; each inside its environment until the next.

    Args:
        recipes: those of one program run as lanes of one cohort, where that is what they say and can be.
        snapshot: of the one recipe that is to be continued: on the engine that has begun it.
        ranks: on which they are to run.

    Raises ``ConfigError`` if a recipe demands lanes and cannot run as one, or its model does not run on its data.

    """
    for places in _programs(recipes):
        group = [recipes[place] for place in places]
        if isinstance(group[0].optimizer, Minimizer):
            with frozen_fits(group[0]) as fits:
                yield places, fits
            continue
        reason = _eager_by(group[0])
        if not reason and _wants_lanes(group, snapshot):
            with ExitStack() as stack:
                try:
                    fits = stack.enter_context(lane_fits(group, ranks))
                except NotCapturedError as error:
                    reason = str(error)
                    _demand_a_choice(group, snapshot, reason)
                else:
                    yield places, fits
                    continue
        notes = [f"ran on the eager engine: {reason}"] if reason else []
        for place, recipe in zip(places, group, strict=True):
            with eager_fit(recipe, notes, None if isinstance(ranks, Alone) else ranks) as fits:
                yield [place], fits


def _eager_by(recipe: Recipe) -> str:
    """Why a fit is eager, whatever else it says; empty if nothing is against lanes."""
    parts = getattr(recipe.distributed, "accumulate", 1)
    lanes = isinstance(recipe.settings, LaneSettings)
    return f"distributed.accumulate={parts} takes the parts of a step one by one" if lanes and parts > 1 else ""


def _wants_lanes(group: Sequence[Recipe], snapshot: Snapshot | None) -> bool:
    settings = group[0].settings
    if not isinstance(settings, LaneSettings):
        return False
    if snapshot is not None and isinstance(settings, AutoSettings):
        return snapshot.meta.get("engine") == "lanes"
    worth = len(group) > 1 or settings.steps >= WORTH_CAPTURING or settings.restarts is not None
    return worth or not isinstance(settings, AutoSettings)


def _demand_a_choice(group: Sequence[Recipe], snapshot: Snapshot | None, reason: str) -> None:
    """Raise ``ConfigError`` if the fits must not run eagerly instead."""
    settings = group[0].settings
    if not isinstance(settings, AutoSettings) or snapshot is not None:
        raise ConfigError([Problem("engine", f"lanes cannot run this fit: {reason}; use engine=auto or engine=eager")])
    if settings.restarts not in (None, 1):
        message = f"several fits at once need lanes, and they cannot run this one: {reason}; leave it out"
        raise ConfigError([Problem.of("engine.restarts", settings.restarts, message)])


def _programs(recipes: Sequence[Recipe]) -> list[list[int]]:
    """The places of recipes that are one program, together; one for the eager engine or a minimizer is alone."""
    found: dict[str, list[int]] = {}
    for place, recipe in enumerate(recipes):
        together = isinstance(recipe.settings, LaneSettings) and not isinstance(recipe.optimizer, Minimizer)
        key = program_key(recipe) if together else str(place)
        found.setdefault(key, []).append(place)
    return list(found.values())


def program_key(recipe: Recipe) -> str:
    """Equal for recipes whose fits may be lanes of one program: they differ in numbers, seeds and optimizers only."""
    config = recipe.config
    parts = {
        "model": config["model"],
        "geometry": config["geometry"],
        "guide": _without(config["guide"], recipe.guide.start_keys),
        "stop": config["stop"],
        "estimator": _without(config["estimator"], tuple(recipe.estimator.varies)),
        "engine": _without(config["engine"], OWN_TO_A_LANE + WATCHING),
        "given": [id(recipe.source.problem.model), id(getattr(recipe.source.guide, "program", None))],
        "data": [id(value) for value in (*recipe.source.problem.args, *recipe.source.problem.kwargs.values())],
    }
    if config["model"]["name"] != "python":
        # A shipped model is loaded anew for each recipe, and is the same.
        parts |= {"given": [parts["given"][1]], "data": []}
    return json.dumps(parts, sort_keys=True, default=repr)


def _without(node: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}
