"""Where the fits of one program start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import Captured, NotCapturedError
from sweepvi.engine.lanes.entrant import Entrant, Start, buffers_of
from sweepvi.engine.optimization import Optimization
from sweepvi.engine.trial_run import start
from sweepvi.errors import ConfigError
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe, reseeded
from sweepvi.settings import LaneSettings

RESTARTS = 4
"""Fits of one recipe, under different seeds, unless the recipe says how many."""

SMALL = 4096
"""Parameters up to which several fits cost hardly more than one."""


def restarts_of(recipe: Recipe, size: int) -> list[Recipe]:
    """The recipe under each of its seeds: its own first."""
    settings = lane_settings(recipe)
    count = settings.restarts or (RESTARTS if size <= SMALL else 1)
    return [recipe, *(reseeded(recipe, seed) for seed in restart_seeds(settings.seed, count)[1:])]


def lane_settings(recipe: Recipe) -> LaneSettings:
    """The settings of a recipe that may be lanes."""
    assert isinstance(recipe.settings, LaneSettings)
    return recipe.settings


def restart_seeds(seed: int, count: int) -> list[int]:
    """The seeds of a fit's restarts: its own first, then others that are far from those of neighbouring seeds."""
    return [(seed + number * 0x9E3779B1) % 2**32 for number in range(count)]


class Starts:
    """Where recipes of one program start; each seed and start is computed once."""

    def __init__(self, engine: EagerEngine) -> None:
        self._engine = engine
        self._first = engine.recipe
        self._buffers = buffers_of(engine)
        self._known: list[tuple[Recipe, Start]] = [(engine.recipe, Start.of(engine))]

    def of(self, recipe: Recipe) -> Start:
        """A recipe's start; ``NotCapturedError`` if the seed decides what is no parameter."""
        for other, known in self._known:
            if _starts_alike(recipe, other):
                return known
        try:
            with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
                found = Start.of(start(recipe, isolation))
        except ConfigError as error:
            # Its own seed has started.
            raise NotCapturedError(f"under seed {recipe.settings.seed}, the {error.problems[0]}") from error
        differing = _differing(self._first.problem.model, recipe.problem.model)
        if differing is not None:
            raise NotCapturedError(f"the model's {differing} differs between seeds, and is no parameter")
        if found.buffers.keys() != self._buffers.keys() or any(
            not torch.equal(value, self._buffers[name]) for name, value in found.buffers.items()
        ):
            raise NotCapturedError("networks have buffers that differ between seeds")
        self._known.append((recipe, found))
        return found

    def optimization(self, recipe: Recipe) -> Optimization:
        """The optimizers of a recipe, over the parameters of the program."""
        if recipe is self._first:
            return self._engine.optimization
        return Optimization(recipe, self._engine.modules)


def _differing(one: Any, other: Any) -> str | None:
    """An attribute of plain data that two instances of a class do not have in common; of networks, buffers tell."""
    if one is other or isinstance(one, nn.Module) or type(one) is not type(other):
        return None
    ours, theirs = getattr(one, "__dict__", {}), getattr(other, "__dict__", {})
    for name, mine in ours.items():
        yours = theirs.get(name)
        if isinstance(mine, Tensor) and isinstance(yours, Tensor):
            if mine.shape != yours.shape or not torch.equal(mine, yours):
                return name
        elif isinstance(mine, bool | int | float | str) and mine != yours:
            return name
    return None


def _starts_alike(one: Recipe, other: Recipe) -> bool:
    return one.settings.seed == other.settings.seed and one.config["guide"] == other.config["guide"]


def entrants_of(restarts: Sequence[Recipe], starts: Starts, found: Captured) -> list[Entrant]:
    """A recipe's fits; its own alone if others, for which nobody asked, cannot be lanes beside it."""
    entrants: list[Entrant] = []
    for recipe in restarts:
        try:
            entrants.append(Entrant.of(recipe, starts.of(recipe), starts.optimization(recipe), found))
        except NotCapturedError:
            if not entrants or lane_settings(recipe).restarts is not None:
                raise
            return entrants[:1]
    return entrants
