"""Trials as lanes of one cohort: a lane whose fit is over is another fit's at the next stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweepvi.engine.environment import environment, resumed
from sweepvi.engine.full_data import coverage
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import NotCapturedError, captured, capturing
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.compaction import moved, size_to_go_on
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.failure import why_not_finite
from sweepvi.engine.lanes.lane_fits import LADDER
from sweepvi.engine.lanes.memory import CHUNK, most_lanes
from sweepvi.engine.lanes.scoring import LaneScorer
from sweepvi.engine.lanes.starts import Starts
from sweepvi.engine.lanes.update import Plan, form
from sweepvi.engine.score import SCORE_SEED, predictive_log_density
from sweepvi.engine.trial_run import start
from sweepvi.engine.trials import (
    Ended,
    Event,
    Failed,
    Kept,
    Reached,
    Refused,
    RungValue,
    Task,
    Trials,
    draws_of_rung,
    smoothed,
)
from sweepvi.errors import ConfigError
from sweepvi.private import sources_forgotten
from sweepvi.programs import Suspended, reachable_modules
from sweepvi.settings import LaneSettings

LEAST = 16
"""Steps that are taken before lanes are looked at again, though one of them is at a stop earlier."""

PADDED = (1, 8, 32, 128, 512)
"""Numbers of fits that are scored together: a program is traced for each."""


@dataclass
class _Seat:
    """A fit in a lane."""

    task: Task
    rung: int = 0
    """The next one."""
    seconds: float = 0.0

    @property
    def stop(self) -> int:
        """The step after which it is to be looked at next."""
        rungs = self.task.rungs
        return rungs[self.rung] if self.rung < len(rungs) else self.task.recipe.settings.steps


class LaneTrials(Trials):
    """See :class:`Trials`.

    Its program is entered where it is needed, and left again: several of these can be open at a time.

    Args:
        tasks: the first fits; all are of one program.
        size: lanes, at most.
        total: steps of all fits that will ever enter, about.
        rung_value: see :data:`RungValue`.
        rung_draws: draws of that, if it is by draws.

    Raises:
        NotCapturedError: they cannot run as lanes.
        ConfigError: the model does not run on its data.

    """

    def __init__(
        self, tasks: Sequence[Task], size: int, total: int, rung_value: RungValue = "smoothed", rung_draws: int = 32
    ) -> None:
        recipe = tasks[0].recipe
        assert isinstance(recipe.settings, LaneSettings)
        self._settings = recipe.settings
        self._modules = reachable_modules(recipe.reach())
        self._seats: dict[int, _Seat] = {}
        self._plans: dict[object, Plan] = {}
        self._steps_of_fits = self._steps_of_room = 0.0
        self._no_more = False
        with environment(self._settings, self._modules) as isolation, sources_forgotten():
            self._engine = start(recipe, isolation)
            self._captured = captured(self._engine)
            self._starts = Starts(self._engine)
            entrants = [self._entrant(task) for task in tasks[:size]]
            room = most_lanes(self._captured, self._settings)
            fitting = [each for each in LADDER if each <= min(size, max(room, 1))]
            wanted = next((each for each in LADDER if each >= min(size, max(1, room))), fitting[-1])
            self._cohort = Cohort(
                self._captured,
                entrants[:1],
                wanted if wanted <= max(room, 1) else fitting[-1],
                self._settings,
                max(1, total // size),
                list(self._plans.values()),
            )
            self._cohort.ended([0])
            capturing(lambda: self._cohort.trace(self._stops()))
            self._seen = coverage(self._engine.programs, self._engine.problem, self._settings.score_minibatches)
            with self._seen.plates():
                self._scorer = capturing(lambda: LaneScorer(self._engine, self._captured))
            draws = rung_value == "fixed"
            self._rung_scorer = capturing(lambda: LaneScorer(self._engine, self._captured)) if draws else None
            self._rung_draws = rung_draws
            self._predicting = None
            if tasks[0].heldout:
                self._predicting = capturing(lambda: LaneScorer(self._engine, self._captured, predictive_log_density))
            self._suspended = Suspended(self._modules)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with resumed(self._settings, self._modules, self._suspended), sources_forgotten():
            yield

    @property
    def running(self) -> list[int]:
        """See :attr:`Trials.running`."""
        return [seat.task.key for seat in self._seats.values()]

    @property
    def size(self) -> int:
        """See :attr:`Trials.size`."""
        return self._cohort.lanes

    @property
    def free(self) -> int:
        """See :attr:`Trials.free`; where lanes share minibatches, all begin together."""
        if self._captured.draws.minibatches and self._seats:
            return 0
        return self._cohort.lanes - len(self._seats)

    def enter(self, tasks: Sequence[Task]) -> list[Event]:
        """See :meth:`Trials.enter`."""
        entrants: dict[int, Entrant] = {}
        events: list[Event] = []
        free = iter([lane for lane in range(self._cohort.lanes) if lane not in self._seats])
        with self._inside():
            for task in tasks:
                try:
                    entrant = self._entrant(task)
                except NotCapturedError as error:
                    events.append(Refused(task.key, str(error)))
                    continue
                except ConfigError as error:
                    events.append(Failed(task.key, str(error)))
                    continue
                lane = next(free)
                entrants[lane] = entrant
                self._seats[lane], self._no_more = _Seat(task), False
            if entrants:
                self._put(entrants)
        return events

    def _put(self, entrants: dict[int, Entrant]) -> None:
        try:
            self._cohort.put(entrants)
        except KeyError:
            # Another form of optimizer: the step is another one from now on.
            staying = [lane for lane in self._seats if lane not in entrants]
            later, size = list(self._plans.values()), self._cohort.lanes
            self._cohort = moved(self._cohort, staying, size, list(entrants.values()), later)
            self._reseat([*staying, *entrants])
            self._cohort.trace(self._stops())

    def _reseat(self, lanes: Sequence[int]) -> None:
        """Fits of these lanes are now in the first ones."""
        self._seats = {place: self._seats[lane] for place, lane in enumerate(lanes)}

    def _entrant(self, task: Task) -> Entrant:
        recipe = task.recipe
        entrant = Entrant.of(recipe, self._starts.of(recipe), self._starts.optimization(recipe), self._captured)
        self._plans.setdefault(form(entrant.plan), entrant.plan)
        return entrant

    def drop(self, keys: Iterable[int]) -> None:
        """See :meth:`Trials.drop`."""
        wanted = set(keys)
        self._leave([lane for lane, seat in self._seats.items() if seat.task.key in wanted])

    def _leave(self, lanes: Sequence[int]) -> None:
        for lane in lanes:
            del self._seats[lane]
        self._cohort.ended(lanes)

    def no_more(self) -> None:
        """See :meth:`Trials.no_more`."""
        self._no_more = True

    def advance(self) -> list[Event]:
        """See :meth:`Trials.advance`; to the next stop of a lane, but not for fewer steps than pay."""
        if self._no_more:
            self._compact()
        began = time.perf_counter()
        stops, done = self._stops(), self._cohort.state.done.squeeze(-1)
        nearest = int((stops - done)[list(self._seats)].min())
        self._cohort.advance(stops, most=min(CHUNK, max(nearest, LEAST)))
        chunk = self._cohort.record.chunks[-1]
        self._steps_of_fits += float(chunk.ran.sum())
        self._steps_of_room += float(chunk.ran.numel())
        seconds = (time.perf_counter() - began) / len(self._seats)
        for seat in self._seats.values():
            seat.seconds += seconds
        events = self._look()
        self._cohort.record.forget(self._seats)
        return events

    def _compact(self) -> None:
        cohort, lanes = self._cohort, list(self._seats)
        if cohort.stepping.graph is None or cohort.stepping.compiled_from is not None or not lanes:
            return
        left = [cohort.left[lane] for lane in lanes]
        size = size_to_go_on(cohort.stepping.graph, cohort.lanes, left, LADDER, cohort.device)
        if size != cohort.lanes:
            with self._inside():
                self._cohort = moved(cohort, lanes, size)
                self._reseat(lanes)
                self._cohort.trace(self._stops())

    def _stops(self) -> Tensor:
        """The step after which each lane is to be looked at next: float64, shape [K]."""
        stops = torch.zeros(self._cohort.lanes, dtype=torch.float64)
        for lane, seat in self._seats.items():
            stops[lane] = seat.stop
        return stops.to(self._cohort.device)

    def _look(self) -> list[Event]:
        """What has happened to lanes: rungs, ends, divergences."""
        cohort = self._cohort
        done, alive, finite = cohort.done, cohort.alive, cohort.finite
        at_rung, finished, broken = [], [], []
        for lane, seat in self._seats.items():
            at_stop = done[lane] == seat.stop
            if not alive[lane] or (at_stop and not finite[lane]):
                broken.append(lane)
            elif at_stop:
                (at_rung if seat.rung < len(seat.task.rungs) else finished).append(lane)
        events: list[Event] = [*self._at_rungs(at_rung), *self._diverged(broken), *self._finished(finished)]
        self._leave([*broken, *finished])
        return events

    def _at_rungs(self, lanes: Sequence[int]) -> list[Event]:
        values = [smoothed(self._cohort.record.losses(lane)) for lane in lanes]
        if self._rung_scorer is not None and lanes:
            values = list(map(draws_of_rung, self._scores(self._rung_scorer, lanes, self._rung_draws)))
        events: list[Event] = []
        for lane, value in zip(lanes, values, strict=True):
            seat = self._seats[lane]
            events.append(Reached(seat.task.key, seat.rung, seat.stop, value, seat.seconds))
            seat.rung += 1
        return events

    def _diverged(self, lanes: Sequence[int]) -> list[Event]:
        if not lanes:
            return []
        with self._inside():
            why = why_not_finite(self._cohort, lanes)
        none = torch.empty(0, dtype=torch.float64, device="cpu")
        return [self._over(lane, "diverged", why[lane], none) for lane in lanes]

    def _finished(self, lanes: Sequence[int]) -> list[Ended]:
        weights: dict[int, Tensor] = {}
        # Those that are scored alike are scored together.
        for seed, draws in dict.fromkeys(self._scoring_of(lane) for lane in lanes):
            alike = [lane for lane in lanes if self._scoring_of(lane) == (seed, draws)]
            weights |= zip(alike, self._scores(self._scorer, alike, draws, seed), strict=True)
        events = [self._over(lane, "finished", "", weights[lane]) for lane in lanes]
        if self._predicting is not None and lanes:
            predictions = self._scores(self._predicting, lanes, self._settings.score_draws)
            events = [replace(event, heldout=own) for event, own in zip(events, predictions, strict=True)]
        return events

    def _scoring_of(self, lane: int) -> tuple[int, int]:
        task = self._seats[lane].task
        return task.score_seed, task.recipe.settings.score_draws if task.score_draws is None else task.score_draws

    def _over(self, lane: int, status: str, message: str, log_weights: Tensor) -> Ended:
        notes = [note for note in (self._cohort.stepping.note, self._seen.note) if note]
        return Ended(
            key=self._seats[lane].task.key,
            status="finished" if status == "finished" else "diverged",
            message=message,
            steps=self._cohort.done[lane],
            losses=self._cohort.record.losses(lane),
            log_weights=log_weights,
            seconds=self._seats[lane].seconds,
            engine="lanes",
            notes=notes,
            kept=self._kept(lane) if self._seats[lane].task.kept else None,
        )

    def _kept(self, lane: int) -> Kept:
        engine, course = self._engine, self._cohort.course(lane)
        with self._inside(), engine.undone():
            engine.move_to(self._captured.unpacked(self._cohort.results()[lane]))
            params = engine.fitted().state.constrained()
        own = {name: value.cpu() for name, value in params.items()}
        return Kept(own, course.rates, course.skipped, self._seen.data_size)

    def _scores(self, scorer: LaneScorer, lanes: Sequence[int], draws: int, seed: int = SCORE_SEED) -> list[Tensor]:
        """Log weights of fresh draws of some lanes, float64, [draws] each."""
        rows = self._cohort.results()[list(lanes)]
        found: list[Tensor] = []
        plates = self._seen.plates() if scorer is self._scorer else nullcontext()
        with self._inside(), plates:
            while len(found) < len(lanes):
                part = rows[len(found) : len(found) + PADDED[-1]]
                size = next(size for size in PADDED if size >= len(part))
                padded = torch.cat([part, part[:1].expand(size - len(part), -1)])
                found += list(scorer(padded, draws, Interrupt(), seed=seed)[: len(part)])
        return found

    def occupancy(self) -> tuple[float, float]:
        """See :meth:`Trials.occupancy`."""
        found = self._steps_of_fits, self._steps_of_room
        self._steps_of_fits = self._steps_of_room = 0.0
        return found

    def close(self) -> None:
        """See :meth:`Trials.close`."""
        self._cohort.stepping.close()
