"""Fits of a recipe by a minimizer: its restarts, each on frozen draws of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from sweepvi.diagnostics import elbo_score
from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.fits import Fits
from sweepvi.engine.frozen.linear_response import Normals, linear_response
from sweepvi.engine.frozen.program import FrozenProgram, frozen_program
from sweepvi.engine.frozen.search import FrozenSearch
from sweepvi.engine.frozen.telling import facts_of, told, why_diverged
from sweepvi.engine.full_data import coverage
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.end import LaneEnd
from sweepvi.engine.modes import covered
from sweepvi.engine.outcome import Outcome, Restart, Status, float64
from sweepvi.recipe import Recipe

AGAIN = "resumed from the start: a minimizer keeps nothing between its steps that a checkpoint could hold"


class FrozenFits(Fits):
    """See :class:`Fits`; of one recipe. All restarts take a step at a time."""

    def __init__(self, program: FrozenProgram) -> None:
        self.settings = program.recipe.settings
        self._program = program
        self._searches = program.searches()
        self._notes: list[str] = []

    @property
    def total(self) -> int:
        """See :attr:`Fits.total`."""
        return self.settings.steps

    @property
    def step_count(self) -> int:
        """See :attr:`Fits.step_count`."""
        return max(search.steps for search in self._searches.values())

    @property
    def running(self) -> bool:
        """See :attr:`Fits.running`."""
        return any(not search.end for search in self._searches.values())

    @property
    def last_loss(self) -> float:
        """The least of all restarts'."""
        return min(search.last_loss for search in self._searches.values())

    def advance(self, until: int) -> None:
        """See :meth:`Fits.advance`; every restart that is not over takes a step."""
        before = self.step_count
        while self.running and self.step_count == before and not self.interrupt.requested:
            for search in self._searches.values():
                if not search.end and not self.interrupt.requested:
                    search.step()

    def demand_finite_parameters(self) -> None:
        """See :meth:`Fits.demand_finite_parameters`; no step leads to a point where the loss is not finite."""

    def snapshot(self) -> Snapshot:
        """See :meth:`Fits.snapshot`; it holds where the fit stands, from which a result can be used."""
        return self._snapshot(next(iter(self._searches.values())))

    def _snapshot(self, search: FrozenSearch) -> Snapshot:
        engine = self._program.engine
        with self._moved(search.point):
            snapshot = engine.state_snapshot()
        snapshot.put("result", {})
        snapshot.meta["step"] = search.steps
        snapshot.meta["engine"] = "lanes"
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Begin again: the same fit, to the last bit."""
        if snapshot.meta["step"]:
            self._notes.append(AGAIN)

    def outcomes(self, interrupt: Interrupt, progress: Callable[[int, int], None]) -> list[Outcome]:
        """See :meth:`Fits.outcomes`."""
        found = {seed: self._unscored(seed, search) for seed, search in self._searches.items()}
        finished = [outcome for outcome in found.values() if outcome.status == "finished"]
        if not finished:
            return [self._chosen(found)]
        engine = self._program.engine
        seen = coverage(engine.programs, engine.problem, self.settings.score_minibatches)
        with seen.plates():
            end = LaneEnd(engine, self._program.captured, self.settings)
            for outcome in finished:
                point = self._searches[outcome.seed].point
                outcome.log_weights = end.score(point, interrupt, progress)
            best = self._chosen(found)
            best.fresh = end.fresh(self._searches[best.seed].point, interrupt, progress)
            self._respond(best, end, interrupt)
        best.data_size, best.score_note = seen.data_size, seen.note
        best.notes += [end.note] if end.note else []
        if not end.is_whole(best.log_weights, best.fresh):
            best.status, best.message = "interrupted", "interrupted while the result was scored"
        return [best]

    def _respond(self, best: Outcome, end: LaneEnd, interrupt: Interrupt) -> None:
        """Add linear response to the table of the posterior, where it is asked for."""
        if not self._program.minimizer.linear_response or interrupt.requested:
            return
        if best.fresh is None or best.fresh.posterior is None:
            best.notes.append("no linear response: it is told in the table of the posterior, and there is none")
            return
        search, normals = self._searches[best.seed], Normals.of(self._program.captured)
        found = linear_response(search.objective, search.point, normals)
        if found is None:
            best.notes.append("no linear response: the Hessian is not positive definite where the fit ended")
            return
        params = best.fitted.state.constrained()
        values = end.changed(search.point, normals.shapes, lambda noise: found.noise(noise, normals, params), interrupt)
        if values is None:
            best.notes.append("no linear response: draws of this program cannot be traced")
            return
        values = values.double()
        table = best.fresh.posterior.with_linear_response(values.mean(0).tolist(), values.std(0).tolist())
        best.fresh = replace(best.fresh, posterior=table)
        best.frozen["mean_error"] = found.largest_error

    def _chosen(self, found: Mapping[int, Outcome]) -> Outcome:
        """The restart with the highest ELBO, which knows of the others; one that did not finish only if none did."""

        def rank(outcome: Outcome) -> tuple[bool, float]:
            elbo = elbo_score(outcome.log_weights).elbo
            return outcome.status == "finished", float("-inf") if elbo is None else elbo

        best = max(found.values(), key=rank)
        if len(found) > 1:
            best.restarts = [Restart(o.seed, o.status, o.message, o.log_weights) for o in found.values()]
        return best

    def _unscored(self, seed: int, search: FrozenSearch) -> Outcome:
        engine, status = self._program.engine, _status(search)
        with self._moved(search.point):
            fitted = engine.fitted()
            modes = covered(engine, engine.place) if status == "finished" else None
        message = f"interrupted after step {search.steps}" if status == "interrupted" else ""
        return Outcome(
            status=status,
            steps=search.steps,
            message=why_diverged(search, self._program.captured) if status == "diverged" else message,
            losses=float64(search.losses),
            rates={"all": float64(search.rates)},
            skipped=[],
            log_weights=torch.empty(0, dtype=torch.float64, device="cpu"),
            seconds=self.seconds / len(self._searches),
            problem=engine.problem,
            fitted=fitted,
            snapshot=self._snapshot(search),
            seed=seed,
            engine="lanes",
            stopped=told(search, self._program.minimizer) if status == "finished" else "",
            notes=[*engine.place_notes, *self._notes],
            modes=modes,
            frozen=facts_of(search),
        )

    @contextmanager
    def _moved(self, row: Tensor) -> Iterator[None]:
        """Inside, the programs have these parameters."""
        engine = self._program.engine
        with engine.undone():
            engine.move_to(self._program.captured.unpacked(row))
            yield


def _status(search: FrozenSearch) -> Status:
    return "interrupted" if not search.end else "diverged" if search.end == "diverged" else "finished"


@contextmanager
def frozen_fits(recipe: Recipe) -> Iterator[FrozenFits]:
    """A recipe's fits at their first step, inside their environment; ``ConfigError`` says why they cannot be."""
    with frozen_program(recipe) as program:
        yield FrozenFits(program)
