"""Trials on the eager engine, one at a time: for programs that cannot be lanes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sweepvi.engine.eager_fit import EagerFit
from sweepvi.engine.environment import environment, resumed
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lone_trials import SECONDS, LoneTrials
from sweepvi.engine.outcome import Outcome, float64
from sweepvi.engine.score import log_weights, predictive_log_density
from sweepvi.engine.trial_run import start
from sweepvi.engine.trials import Ended, Event, Failed, Kept, Reached, RungValue, Task, draws_of_rung, smoothed
from sweepvi.errors import ConfigError
from sweepvi.loading import described
from sweepvi.programs import Suspended, reachable_modules
from sweepvi.random_state import raw_random_state, set_raw_random_state


class EagerTrials(LoneTrials):
    """See :class:`Trials`.

    Args:
        notes: for the reader of each fit's result.
        rung_value: see :data:`RungValue`.
        rung_draws: draws of that, if it is by draws.

    """

    def __init__(self, notes: list[str], rung_value: RungValue = "smoothed", rung_draws: int = 32) -> None:
        self._notes, self._draws = notes, rung_draws if rung_value == "fixed" else None
        super().__init__()
        self._rung = 0

    def enter(self, tasks: Sequence[Task]) -> list[Event]:
        """See :meth:`Trials.enter`."""
        for task in tasks:
            recipe = task.recipe
            self._modules, self._settings = reachable_modules(recipe.reach()), recipe.settings
            try:
                with environment(self._settings, self._modules) as isolation:
                    self._fit = EagerFit(start(recipe, isolation), self._notes)
                    self._suspended, self._random = Suspended(self._modules), raw_random_state()
            except ConfigError as error:
                return [Failed(task.key, str(error))]
            self._task, self._rung = task, 0
        return []

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with resumed(self._settings, self._modules, self._suspended):
            set_raw_random_state(self._random)
            try:
                yield
            finally:
                self._random = raw_random_state()

    def advance(self) -> list[Event]:
        """See :meth:`Trials.advance`; to the next stop, or for :data:`SECONDS`."""
        assert self._task is not None
        task, fit = self._task, self._fit
        began = time.perf_counter()
        stop = task.rungs[self._rung] if self._rung < len(task.rungs) else fit.total
        try:
            with self._inside():
                while fit.running and fit.step_count < stop and time.perf_counter() - began < SECONDS:
                    fit.advance(stop)
                    self._steps += 1
                if fit.step_count == stop:
                    fit.demand_finite_parameters()
                fit.seconds += time.perf_counter() - began
                if fit.running:
                    return self._at_rung(task) if fit.step_count == stop else []
                return [self._over(task)]
        except Exception as error:
            # The user's own, in a step or in the score: one fit's end, and not the worker's.
            self._task = None
            return [Failed(task.key, described(error))]

    def _at_rung(self, task: Task) -> list[Event]:
        engine = self._fit.engine
        value = smoothed(float64(self._fit.losses))
        if self._draws is not None:
            before = raw_random_state()
            with engine.optimization.evaluated():
                value = draws_of_rung(
                    log_weights(engine.programs, engine.problem, self._draws, Interrupt(), lambda done, total: None)
                )
            set_raw_random_state(before)
        self._rung += 1
        return [Reached(task.key, self._rung - 1, engine.step_count, value, self._fit.seconds)]

    def _over(self, task: Task) -> Ended:
        outcome = self._fit.unscored()
        if outcome.status == "finished":
            self._fit.score(outcome, Interrupt(), lambda done, total: None, task.score_draws, task.score_seed)
        heldout = self._predicted() if task.heldout and outcome.status == "finished" else None
        self._task = None
        empty = torch.empty(0, dtype=torch.float64, device="cpu")
        return Ended(
            key=task.key,
            status="finished" if outcome.status == "finished" else "diverged",
            message=outcome.message,
            steps=outcome.steps,
            losses=outcome.losses,
            log_weights=outcome.log_weights if outcome.status == "finished" else empty,
            seconds=outcome.seconds,
            engine="eager",
            notes=[note for note in (*outcome.notes, outcome.score_note) if note],
            heldout=heldout,
            kept=_kept(outcome) if task.kept else None,
        )

    def _predicted(self) -> Tensor:
        engine, draws = self._fit.engine, self._settings.score_draws
        with engine.optimization.evaluated():
            return log_weights(
                engine.programs,
                engine.problem,
                draws,
                Interrupt(),
                lambda done, total: None,
                weigh=predictive_log_density,
            )


def _kept(outcome: Outcome) -> Kept:
    params = {name: value.cpu() for name, value in outcome.fitted.state.constrained().items()}
    return Kept(params, outcome.rates, outcome.skipped, outcome.data_size)
