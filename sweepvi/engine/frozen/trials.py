"""Trials by minimizers, one at a time: each has a number of evaluations of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from torch import Tensor

from sweepvi.engine.environment import environment, resumed
from sweepvi.engine.frozen.program import FrozenProgram
from sweepvi.engine.frozen.telling import told, why_diverged
from sweepvi.engine.full_data import Coverage, coverage
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import capturing
from sweepvi.engine.lanes.scoring import LaneScorer
from sweepvi.engine.lone_trials import SECONDS, LoneTrials
from sweepvi.engine.outcome import float64
from sweepvi.engine.score import SCORE_SEED, Weigh, log_weight, predictive_log_density
from sweepvi.engine.trials import Ended, Event, Failed, Kept, Task
from sweepvi.errors import ConfigError
from sweepvi.loading import described
from sweepvi.private import sources_forgotten
from sweepvi.programs import Suspended, reachable_modules


class FrozenTrials(LoneTrials):
    """See :class:`Trials`; a fit reaches no rungs: it is over before a pruner could judge it by its losses."""

    def enter(self, tasks: Sequence[Task]) -> list[Event]:
        """See :meth:`Trials.enter`."""
        for task in tasks:
            recipe = task.recipe
            self._modules, self._settings = reachable_modules(recipe.reach()), recipe.settings
            try:
                with environment(self._settings, self._modules) as isolation, sources_forgotten():
                    self._program = FrozenProgram(recipe, isolation)
                    self._search = self._program.lone_search()
                    self._suspended = Suspended(self._modules)
            except ConfigError as error:
                return [Failed(task.key, str(error))]
            self._task, self._seconds = task, 0.0
        return []

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with resumed(self._settings, self._modules, self._suspended), sources_forgotten():
            yield

    def advance(self) -> list[Event]:
        """See :meth:`Trials.advance`; for :data:`SECONDS`, or to the end."""
        assert self._task is not None
        task, began, before = self._task, time.perf_counter(), self._search.steps
        try:
            with self._inside():
                while not self._search.end and time.perf_counter() - began < SECONDS:
                    self._search.step()
                self._steps += self._search.steps - before
                self._seconds += time.perf_counter() - began
                return [self._over(task)] if self._search.end else []
        except Exception as error:
            # The user's own, in a step or in the score: one fit's end, and not the worker's.
            self._task = None
            return [Failed(task.key, described(error))]

    def _over(self, task: Task) -> Ended:
        program, search = self._program, self._search
        finished = search.end != "diverged"
        seen = coverage(program.engine.programs, program.engine.problem, self._settings.score_minibatches)
        draws = self._settings.score_draws if task.score_draws is None else task.score_draws
        weights = self._scored(log_weight, draws, task.score_seed, seen) if finished else float64([])
        wanted = task.heldout and finished
        self._task = None
        return Ended(
            key=task.key,
            status="finished" if finished else "diverged",
            message="" if finished else why_diverged(search, program.captured),
            steps=search.steps,
            losses=float64(search.losses),
            log_weights=weights,
            seconds=self._seconds,
            engine="lanes",
            notes=[note for note in (told(search, program.minimizer) if finished else "", seen.note) if note],
            heldout=self._scored(predictive_log_density, self._settings.score_draws) if wanted else None,
            kept=self._kept(seen) if task.kept else None,
        )

    def _scored(self, weigh: Weigh, draws: int, seed: int = SCORE_SEED, seen: Coverage | None = None) -> Tensor:
        """Numbers of fresh draws of the fit: float64, [draws]."""
        program = self._program
        with seen.plates() if seen is not None else nullcontext():
            scorer = capturing(lambda: LaneScorer(program.engine, program.captured, weigh))
            return scorer(self._search.point[None], draws, Interrupt(), seed=seed)[0]

    def _kept(self, seen: Coverage) -> Kept:
        engine = self._program.engine
        with engine.undone():
            engine.move_to(self._program.captured.unpacked(self._search.point))
            params = engine.fitted().state.constrained()
        own = {name: value.cpu() for name, value in params.items()}
        return Kept(own, {"all": float64(self._search.rates)}, [], seen.data_size)
