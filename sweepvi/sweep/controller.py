"""The controller: asks the study for trials, has workers run them, and tells it what came of them.

It alone knows of Optuna. What it decides is in the log before a worker hears of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import connection
from typing import Any

from sweepvi.errors import SweepviError
from sweepvi.sweep.dispatch import Dispatch, Seat
from sweepvi.sweep.interrupt import Stopping
from sweepvi.sweep.jobs import FRESH, Fits, Job, under_seed
from sweepvi.sweep.live import View
from sweepvi.sweep.program import program_of
from sweepvi.sweep.protocol import AtRung, Done, Lost, Order, Setup, Turn
from sweepvi.sweep.pruning import rung_steps
from sweepvi.sweep.records import TrialRecord
from sweepvi.sweep.sampling import PRESCRIBED
from sweepvi.sweep.slots import Crew
from sweepvi.sweep.study import Study

LANES = 256
"""Most fits that a worker runs at once, unless the settings say how many."""

AHEAD = 4
"""Times the lanes of all workers: so many trials are known ahead, where the sampler does not look at results."""

SHARE = 4
"""A sampler that looks at results has at most one trial in so many under way."""

STILLBORN = 3
"""Workers in a row that may die before they have said anything."""

COPY_SECONDS = 15.0
"""Between copies for others to see."""

GRACE = 10.0
"""Seconds beyond the time limit that a worker may be silent."""


class Controller:
    """Runs a study to its end.

    Args:
        study: to be run.
        crew: the workers, that have been told the setup.
        setup: what workers must know.
        view: hears of progress.
        copy: called now and then, for others to see what there is.

    """

    def __init__(
        self, study: Study, crew: Crew, setup: Setup, view: View, copy: Callable[[], object] = lambda: None
    ) -> None:
        self._copy, self._copied = copy, time.monotonic()
        self._study, self._plan, self._setup, self._view = study, study.plan, setup, view
        self._crew, self._processes = crew, crew.processes
        self._dispatch = Dispatch(self._plan.workers.lanes or LANES, study.judges_at_rungs)
        self._dispatch.seats.update((number, Seat()) for number in self._processes)
        self._fits: dict[int, Fits] = {}
        self._keys = itertools.count()
        self._stillborn = 0
        self._busy = self._room = self._computing = 0.0
        self._before_last = 0.0, 0.0
        self._trouble = ""

    def run(self, stopping: Stopping) -> None:
        """Run trials until there are as many as wanted, or the user wants to stop."""
        self._view.started(self._study.total, self._study.record)
        for trial in self._study.record.trials:
            if self._study.is_mine(trial):
                self._view.asked(trial.number)
                self._submit(trial)
        while not stopping.requested:
            with self._study.turn() as mine:
                if mine:
                    self._judge()
                    self._ask()
                    over = not (self._dispatch.waiting or self._dispatch.running or self._study.unfinished)
                    if over and self._study.asked >= self._study.total:
                        break
            self._tell_trouble()
            self._answer()
            self._listen()
            self._check_time()
        self._last_turn()

    def finals(self, missing: Callable[[], list[TrialRecord]], stopping: Stopping) -> None:
        """Score trials again, on fresh draws and under other seeds; or wait until someone else has.

        Args:
            missing: the trials that are to be scored again and have not been.
            stopping: whether the user wants to stop.

        """
        while not stopping.requested and (trials := missing()):
            with self._study.turn() as mine:
                chosen = mine and self._study.may_score()
            if chosen:
                self._score_again(trials, stopping)
            else:
                self._listen()
        self._last_turn()

    def _score_again(self, trials: Iterable[TrialRecord], stopping: Stopping) -> None:
        settings = self._plan.settings
        trials = list(trials)
        self._view.message(f"scoring the best {len(trials)} again")
        for trial in trials:
            config = self._plan.configuration(trial.params)
            have = {(final.role, final.seed) for final in trial.finals}
            for place in range(settings.final_seeds + 1):
                role = "reseeded" if place else "rescored"
                # Seeds of the trial's own fits have taken part in choosing it.
                own = under_seed(config, place + (settings.seeds - 1 if place else 0))
                if (role, own["engine"]["seed"]) not in have:
                    self._add(own, trial.number, role=role, draws=settings.final_draws, draws_seed=FRESH)
        while not stopping.requested and (self._dispatch.waiting or self._dispatch.running):
            self._answer()
            self._listen()
            self._check_time()
            with self._study.turn():
                pass
        self._last_turn()

    def _last_turn(self) -> None:
        """Keep what is not kept yet."""
        deadline = time.monotonic() + GRACE
        done = False
        while not done and time.monotonic() < deadline:
            with self._study.turn() as mine:
                if mine:
                    self._judge()
                done = mine
            if not done:
                self._study.wait_for_turn()

    def _tell_trouble(self) -> None:
        if self._study.trouble != self._trouble:
            self._trouble = self._study.trouble
            self._view.message(self._trouble or "the database answers again")

    def note_occupancy(self) -> None:
        """Keep how busy lanes were."""
        if self._room:
            self._study.note(
                {
                    "event": "occupancy",
                    "lanes_busy": self._busy / self._room,
                    # While there were trials that had not begun: after that, lanes must run empty one by one.
                    "lanes_busy_while_more": self._before_last[0] / max(1.0, self._before_last[1]),
                    "sampler_seconds": self._study.sampler_seconds,
                    "computing_seconds": self._computing,
                }
            )
            self._last_turn()

    def _replace(self, number: int) -> None:
        self._crew.replace(number, self._setup)
        self._dispatch.seats[number] = Seat()

    def _ask(self) -> None:
        """Ask for as many trials as there is room for."""
        settings = self._plan.settings
        limit = AHEAD * self._dispatch.lanes * len(self._processes)
        if not self._plan.grid and settings.sampler not in PRESCRIBED:
            limit = max(2 * len(self._processes), min(limit // AHEAD, self._study.total // SHARE))
        limit = min(limit, max(2 * len(self._processes), self._study.share))
        while len(self._fits) < limit and (trial := self._study.ask()) is not None:
            self._view.asked(trial.number)
            self._submit(trial)

    def _submit(self, trial: TrialRecord) -> None:
        """Have a trial's fits run: all of them, or one after another where a pruner looks at each."""
        settings = self._plan.settings
        config = self._plan.configuration(trial.params)
        self._fits[trial.number] = Fits(settings.seeds, tuple(settings.objective))
        for place in range(1 if self._study.pruner == "wilcoxon" else settings.seeds):
            self._add(config, trial.number, place)

    def _add(
        self,
        config: Mapping[str, Any],
        number: int,
        place: int = 0,
        role: str = "trial",
        draws: int | None = None,
        draws_seed: int | None = None,
    ) -> None:
        own = under_seed(config, place) if role == "trial" and place else dict(config)
        judged = role == "trial" and self._study.judges_at_rungs
        rungs = rung_steps(self._plan.settings, int(own["engine"]["steps"])) if judged else ()
        folder = None
        if role == "trial" and self._plan.settings.folders:
            name = f"{number}" if self._plan.settings.seeds == 1 else f"{number}-{place}"
            folder = str(self._study.log.path.parent.resolve() / "trials" / name)
        order = Order(next(self._keys), program_of(own), own, rungs, draws, draws_seed, folder)
        self._dispatch.add(Job(order, number, place, role))

    def _answer(self) -> None:
        """Answer the workers that have spoken, as far as there is something to do."""
        last = self._study.asked >= self._study.total
        for number, seat in list(self._dispatch.seats.items()):
            if not seat.asked:
                continue
            if seat.draining and not seat.jobs:
                self._replace(number)
                continue
            answer = self._dispatch.answer(number, last)
            if answer is None:
                continue
            now = time.monotonic()
            for order in answer.orders:
                seat.jobs[order.key].sent = now
            process = self._processes[number]
            process.trials += len(answer.orders)
            if not process.send(answer):
                self._died(number)

    def _listen(self) -> None:
        """Hear what workers have to say; waits if none has anything."""
        lines = {process.connection: number for number, process in self._processes.items()}
        spoken = connection.wait(list(lines), timeout=0.2)
        for line in spoken:
            number = lines[line]  # pyright: ignore[reportArgumentType]
            turn = self._processes[number].receive()
            if turn is None:
                self._died(number)
            else:
                self._hear(number, turn)
        if spoken:
            running = sum(len(seat.jobs) for seat in self._dispatch.seats.values())
            self._view.running(running, self._dispatch.lanes * len(self._processes), len(self._processes))

        if time.monotonic() - self._copied > COPY_SECONDS:
            self._copy()
            self._copied = time.monotonic()

    def _hear(self, number: int, turn: Turn) -> None:
        self._stillborn = 0
        self._dispatch.heard(number, turn)
        self._busy, self._room = self._busy + turn.busy, self._room + turn.room
        if self._study.asked < self._study.total or self._dispatch.waiting:
            self._before_last = self._busy, self._room
        self._computing += turn.computing
        lost = [event for event in turn.events if isinstance(event, Lost)]
        for event in turn.events:
            if isinstance(event, AtRung):
                job = self._dispatch.seats[number].jobs.get(event.key)
                if job is not None:
                    self._at_rung(job, event)
            elif isinstance(event, Done):
                job = self._dispatch.ended(number, event.key)
                if job is not None:
                    self._done(job, event)
            elif event.alone:
                job = self._dispatch.ended(number, event.key)
                if job is not None:
                    self._fail(job, "crash", event.message)
        together = [event.key for event in lost if not event.alone]
        if together:
            for job in self._dispatch.gone(number, together):
                self._fail(job, "crash", lost[0].message)
        process, limit = self._processes[number], self._plan.workers.recycle_after
        if turn.damaged or (limit is not None and process.trials >= limit) or process.has_grown(self._plan.workers):
            self._dispatch.seats[number].draining = True

    def _at_rung(self, job: Job, event: AtRung) -> None:
        fits = self._fits.get(job.number)
        arrival = fits.at_rung(job.number, job.place, event) if fits else None
        if arrival is not None:
            self._study.arrived(arrival)

    def _done(self, job: Job, event: Done) -> None:
        if job.role != "trial":
            self._final(job, event)
            return
        fits = self._fits.get(job.number)
        if fits is None:
            return
        verdict = fits.ended(job.place, event)
        if verdict is None and self._study.pruner == "wilcoxon":
            value = fits.values(event)[0]
            if value is not None and self._study.report_seed(job.number, job.place, value):
                verdict = fits.given_up(f"pruned after {job.place + 1} seeds")
            else:
                self._add(job.order.config, job.number, job.place + 1)
        if verdict is not None:
            self._study.over(job.number, verdict)
            self._forget(job.number)

    def _final(self, job: Job, event: Done) -> None:
        self._study.add_final(
            number=job.number,
            role=job.role,
            seed=job.seed,
            elbo=event.elbo,
            elbo_se=event.elbo_se,
            draws=job.order.score_draws,
        )

    def _fail(self, job: Job, reason: str, message: str) -> None:
        fits = self._fits.get(job.number)
        if job.role == "trial" and fits is not None:
            self._study.over(job.number, fits.failed(reason, message))
            self._forget(job.number)

    def _judge(self) -> None:
        """In a turn: let the study decide what can be decided."""
        for number in self._study.lost():
            self._forget(number)
            self._fits.pop(number, None)
            if self._study.record.trials[number].state != "RUNNING":
                self._view.ended(self._study.record.trials[number])
        pruned, settled = self._study.judge()
        for number in pruned:
            self._forget(number)
        for trial in settled:
            self._fits.pop(trial.number, None)
            self._view.ended(trial)

    def _forget(self, number: int) -> None:
        """The fits of a trial are not wanted any more."""
        self._dispatch.forget([job for job in self._dispatch.jobs() if job.number == number and job.role == "trial"])

    def _died(self, number: int) -> None:
        """A worker is no more: its fits are tried again, and another one takes its place."""
        process = self._processes[number]
        epitaph = process.epitaph()
        if process.turns == 0:
            self._stillborn += 1
            if self._stillborn >= STILLBORN:
                said = self._crew.output().decode(errors="replace").strip().splitlines()[-1:]
                raise SweepviError(f"workers do not start: {epitaph}; {' '.join(said) or 'they said nothing'}")
        self._view.message(f"a worker has died ({epitaph}); its trials are run again")
        for job in self._dispatch.gone(number):
            self._fail(job, "crash", epitaph)
        self._replace(number)

    def _check_time(self) -> None:
        """End fits that take too long; with their worker, if it does not answer."""
        limit = self._plan.settings.time_limit
        if limit is None:
            return
        for number, seat in list(self._dispatch.seats.items()):
            late = [job for job in seat.jobs.values() if job.overdue(limit)]
            silent = not seat.asked and time.monotonic() - self._processes[number].heard > GRACE
            for job in late:
                self._fail(job, "time", f"took longer than sweep.time_limit = {limit:g} s")
            if late and silent:
                self._dispatch.returned(number)
                self._replace(number)
