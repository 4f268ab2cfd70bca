"""A fit by a minimizer before its first step: its loss as a function, and its restarts, each with draws of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.frozen.demands import demand_derivative, demand_function, first_draws
from sweepvi.engine.frozen.linear_response import MOST
from sweepvi.engine.frozen.objective import DrawnLosses, FrozenObjective
from sweepvi.engine.frozen.search import FrozenSearch
from sweepvi.engine.lanes.captured import Captured, NotCapturedError, captured
from sweepvi.engine.lanes.lane_run import threads_of
from sweepvi.engine.lanes.starts import Starts, restarts_of
from sweepvi.engine.trial_run import start
from sweepvi.errors import ConfigError, Problem
from sweepvi.optim import Minimizer
from sweepvi.private import sources_forgotten
from sweepvi.programs import Isolation, reachable_modules
from sweepvi.recipe import Recipe
from sweepvi.settings import LaneSettings


class FrozenProgram:
    """The loss of a recipe's fit, captured; use it inside :func:`sweepvi.engine.environment.environment`.

    Raises ``ConfigError`` if the model does not run on its data, or a minimizer cannot run the fit, with the reason.
    """

    def __init__(self, recipe: Recipe, isolation: Isolation) -> None:
        assert isinstance(recipe.optimizer, Minimizer)
        self.recipe, self.minimizer = recipe, recipe.optimizer
        self._name = recipe.config["optimizer"]["name"]
        self.engine: EagerEngine = start(recipe, isolation)
        try:
            self.captured: Captured = captured(self.engine)
            self._prepare()
        except NotCapturedError as error:
            message = f"needs a fit that can be traced, and this one cannot: {error}; use clipped_adam"
            raise ConfigError([Problem.of("optimizer", self._name, message)]) from error

    def _prepare(self) -> None:
        size = len(self.captured.start)
        if self.minimizer.linear_response and size > MOST:
            message = f"needs the Hessian of all {size:,} parameters, and is for up to {MOST:,}"
            raise ConfigError([Problem.of("optimizer.linear_response", True, message)])
        with self.engine.undone():
            demand_function(self.engine, self.captured, self._name)
        self.draws_anything = bool(self.captured.draws.noise.taken)
        guide = self.engine.programs["guide"]
        self.draws = first_draws(self.minimizer, guide, self._name) if self.draws_anything else 1
        self._losses = DrawnLosses(self.captured, self.engine.estimator_numbers, self.draws)
        demand_derivative(self.objective(self.recipe.settings.seed, self.draws), self.captured, self._name)

    def objective(self, seed: int, draws: int) -> FrozenObjective:
        """The mean loss over the first draws of a seed."""
        return FrozenObjective(self._losses.for_draws(draws), seed, draws)

    def searches(self) -> dict[int, FrozenSearch]:
        """The recipe's restarts, by seed, at their start."""
        starts = Starts(self.engine)
        restarts = restarts_of(self.recipe, len(self.captured.start))
        found: dict[int, FrozenSearch] = {}
        for recipe in restarts:
            try:
                found[recipe.settings.seed] = self._search(recipe, self.captured.packed(starts.of(recipe).params))
            except (NotCapturedError, ValueError) as error:
                if not found or _asked_for(recipe):
                    message = f"seeds of this program have no fit in common: {error}; use 1"
                    raise ConfigError([Problem("engine.restarts", message)]) from error
                break
        return found

    def lone_search(self) -> FrozenSearch:
        """The fit under the recipe's own seed."""
        return self._search(self.recipe, self.captured.start)

    def _search(self, recipe: Recipe, row: Tensor) -> FrozenSearch:
        seed = recipe.settings.seed
        return FrozenSearch(
            self.minimizer,
            lambda draws: self.objective(seed, draws),
            row,
            self.draws,
            self.draws_anything,
            recipe.settings.steps,
        )


def _asked_for(recipe: Recipe) -> bool:
    assert isinstance(recipe.settings, LaneSettings)
    return recipe.settings.restarts is not None


@contextmanager
def frozen_program(recipe: Recipe) -> Iterator[FrozenProgram]:
    """A recipe's program inside its environment. Raises as :class:`FrozenProgram` does."""
    assert isinstance(recipe.settings, LaneSettings)
    modules = reachable_modules(recipe.reach())
    with threads_of(recipe.settings.threads), environment(recipe.settings, modules) as isolation, sources_forgotten():
        yield FrozenProgram(recipe, isolation)
