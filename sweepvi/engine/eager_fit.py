"""One fit in progress on the eager engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sweepvi.distributed import Ranks
from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.environment import environment
from sweepvi.engine.fits import SKIPS_IN_A_ROW, Fits
from sweepvi.engine.fresh_draws import Kept, room_for, sites_of
from sweepvi.engine.full_data import coverage
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.modes import covered
from sweepvi.engine.outcome import Ledger, Outcome, float64
from sweepvi.engine.rank_engine import RankEngine
from sweepvi.engine.score import SCORE_SEED, log_weights
from sweepvi.engine.trial_run import start
from sweepvi.engine.watched import Watched
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe


class EagerFit(Fits):
    """See :class:`Fits`; ``notes`` are for the reader of the result."""

    def __init__(self, engine: EagerEngine, notes: list[str]) -> None:
        self.engine, self.settings = engine, engine.recipe.settings
        self._ledger = Ledger()
        self._notes = notes
        self._diverged = ""
        self._watched = Watched(engine, engine.recipe.stop)

    @property
    def total(self) -> int:
        """See :attr:`Fits.total`."""
        return self.settings.steps

    @property
    def step_count(self) -> int:
        """See :attr:`Fits.step_count`."""
        return self.engine.step_count

    @property
    def running(self) -> bool:
        """See :attr:`Fits.running`."""
        return not self._diverged and not self._watched.done and self.step_count < self.total

    @property
    def last_loss(self) -> float:
        """See :attr:`Fits.last_loss`."""
        return self._ledger.losses[-1]

    def advance(self, until: int) -> None:
        """Take one step."""
        del until
        self.at_boundary = False
        if isinstance(self.engine, RankEngine):
            self.engine.asked = self.interrupt.asked
        try:
            loss = self.engine.step()
            self._ledger.add(loss, self.engine.last_rates)
            self._watched.stepped(loss)
        except NonFiniteError as error:
            self._meet(error)
        finally:
            self.at_boundary = self.engine.at_boundary
        if isinstance(self.engine, RankEngine) and self.engine.all_asked:
            self.interrupt.agree()
        if not self._diverged:
            self._watched.look()

    def _meet(self, error: NonFiniteError) -> None:
        engine, ledger = self.engine, self._ledger
        ledger.add(error.loss, engine.last_rates)
        last = ledger.skipped[-SKIPS_IN_A_ROW:]
        too_many = len(last) == SKIPS_IN_A_ROW and last[0] == engine.step_count + 1 - SKIPS_IN_A_ROW
        if self.settings.on_nonfinite != "skip" or too_many:
            self._diverged = f"step {engine.step_count + 1}: {error}"
            return
        engine.skip()
        ledger.skipped.append(engine.step_count)

    def demand_finite_parameters(self) -> None:
        """See :meth:`Fits.demand_finite_parameters`."""
        try:
            self.engine.demand_finite_parameters()
        except NonFiniteError as error:
            self._diverged = f"after step {self.step_count}: {error}"

    def snapshot(self) -> Snapshot:
        """See :meth:`Fits.snapshot`."""
        ledger = self._ledger.of_steps(self.step_count)
        ledger.seconds = self.seconds
        return self._watched.into(ledger.into(self.engine.snapshot()))

    def restore(self, snapshot: Snapshot) -> None:
        """See :meth:`Fits.restore`."""
        self.engine.restore(snapshot)
        if self.step_count == self.total:
            self.engine.meet_late_parameters()
        self._watched.restore(snapshot)
        self._ledger = Ledger.of(snapshot)
        self.seconds = self._ledger.seconds

    def outcomes(self, interrupt: Interrupt, progress: Callable[[int, int], None]) -> list[Outcome]:
        """See :meth:`Fits.outcomes`."""
        # The snapshot has the random state before the score's draws.
        outcome, engine = self.unscored(), self.engine
        if isinstance(engine, RankEngine):
            outcome.world_size, outcome.ranks_agree = engine.ranks.world_size, engine.agreement()
            interrupt.alone = True
            if not engine.ranks.leads:
                return [outcome]
        if outcome.status == "finished":
            self.score(outcome, interrupt, progress, posterior=True)
            with engine.optimization.evaluated():
                outcome.modes = covered(engine, engine.place)
        return [outcome]

    @property
    def losses(self) -> list[float]:
        """Of each step so far."""
        return self._ledger.losses

    def unscored(self) -> Outcome:
        """What the fit has computed, without a score."""
        ledger = self._ledger
        return Outcome(
            status="interrupted" if self.running else "diverged" if self._diverged else "finished",
            steps=self.step_count,
            message=f"interrupted after step {self.step_count}" if self.running else self._diverged,
            skipped=ledger.skipped,
            log_weights=torch.empty(0, dtype=torch.float64, device="cpu"),
            seconds=self.seconds,
            problem=self.engine.problem,
            fitted=self.engine.fitted(),
            snapshot=self.snapshot(),
            losses=float64(ledger.losses),
            rates={label: float64(values) for label, values in ledger.rates.items()},
            seed=self.settings.seed,
            stopped="" if self.running or self._diverged else self._watched.stopped,
            notes=[*self.engine.place_notes, *self._notes],
        )

    def score(
        self,
        outcome: Outcome,
        interrupt: Interrupt,
        progress: Callable[[int, int], None],
        draws: int | None = None,
        seed: int = SCORE_SEED,
        posterior: bool = False,
    ) -> None:
        """Score a finished outcome on fresh draws; None are as many as the settings say.

        ``posterior`` asks what these draws show of the posterior: a second set would cost as much as the score.
        """
        engine, settings = self.engine, self.settings
        draws = settings.score_draws if draws is None else draws
        kept = None
        with engine.optimization.evaluated(), outcome.fitted.late():
            seen = coverage(engine.programs, engine.problem, settings.score_minibatches)
            outcome.data_size, outcome.score_note = seen.data_size, seen.note
            with seen.plates():
                if posterior:
                    kept = self._keeping(outcome, min(draws, settings.posterior_draws))
                weights = log_weights(engine.programs, engine.problem, draws, interrupt, progress, seed, kept)
        outcome.log_weights = weights
        if len(weights) < draws:
            outcome.status, outcome.message = "interrupted", "interrupted while the result was scored"
        elif kept is not None:
            outcome.fresh = kept.concluded()

    def _keeping(self, outcome: Outcome, draws: int) -> Kept:
        sites, draws, note = room_for(sites_of(self.engine.programs, self.engine.problem), draws)
        outcome.notes += [note] if note else []
        return Kept(sites, draws)


@contextmanager
def eager_fit(recipe: Recipe, notes: list[str], ranks: Ranks | None = None) -> Iterator[EagerFit]:
    """A fit at its first step, inside its environment, together with other ranks if there are some.

    ``ConfigError`` if the model does not run on its data.
    """
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        yield EagerFit(start(recipe, isolation, ranks), notes)
