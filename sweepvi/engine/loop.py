"""``fit``: the only loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from sweepvi.distributed import Alone, NotDistributed, Ranks
from sweepvi.engine.checkpoint import Checkpoint, Snapshot
from sweepvi.engine.choice import fits_of
from sweepvi.engine.environment import environment
from sweepvi.engine.fits import Fits
from sweepvi.engine.interrupt import Interrupt, interruptible
from sweepvi.engine.observer import Observer
from sweepvi.engine.outcome import Outcome
from sweepvi.engine.trial_run import start
from sweepvi.errors import Problem as Complaint
from sweepvi.errors import raise_if
from sweepvi.problem import Problem
from sweepvi.programs import Fitted, reachable_modules
from sweepvi.recipe import Recipe


def fit(
    recipe: Recipe,
    observer: Observer | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a recipe to its end, and score the result on fresh draws.

    Args:
        recipe: what to fit.
        observer: hears of progress.
        checkpoint: where to save state, at the recipe's cadence and at the end; None saves nothing.
        resume: continue from ``checkpoint`` instead of from the start.
        ready: called when the model has run and the checkpoint has been read, before the first step.

    Returns:
        The outcome; a numerical failure and Ctrl-C are statuses of it.

    Raises:
        ConfigError: if the model does not run on its data, or not on the engine that the recipe names.
        CheckpointError: if the checkpoint to resume from is missing, damaged or of another fit.

    """
    [outcome] = fit_many([recipe], observer, checkpoint, resume, ready)
    return outcome


def fit_many(
    recipes: Sequence[Recipe],
    observer: Observer | None = None,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """:func:`fit` for several recipes, whose outcomes come in their order; those of one program run as lanes.

    A checkpoint, and with it resumption, is for one recipe only.
    """
    assert checkpoint is None or len(recipes) == 1, "a checkpoint is that of one fit"
    ways = {recipe.distributed for recipe in recipes}
    raise_if([Complaint("distributed", "must be the same for all fits")] if len(ways) > 1 else [])
    if not all(isinstance(way, NotDistributed) for way in ways):
        return _fit_on_ranks(recipes, observer, checkpoint, resume, ready)
    snapshot = checkpoint.load() if checkpoint and resume else None
    return _fit_all(recipes, observer or Observer(), checkpoint, snapshot, ready, Alone())


def _fit_on_ranks(
    recipes: Sequence[Recipe],
    observer: Observer | None,
    checkpoint: Checkpoint | None,
    resume: bool,
    ready: Callable[[], None],
) -> list[Outcome]:
    """:func:`fit_many` on this rank, with the others; only rank 0 reads, writes, and speaks."""
    with recipes[0].distributed.joined(recipes[0].settings.device) as ranks:
        loaded = checkpoint.load() if checkpoint and resume and ranks.leads else None
        snapshot = ranks.from_first(loaded)
        if ranks.leads:
            return _fit_all(recipes, observer or Observer(), checkpoint, snapshot, ready, ranks)
        return _fit_all(recipes, Observer(), None, snapshot, lambda: None, ranks)


def _fit_all(
    recipes: Sequence[Recipe],
    observer: Observer,
    checkpoint: Checkpoint | None,
    snapshot: Snapshot | None,
    ready: Callable[[], None],
    ranks: Ranks,
) -> list[Outcome]:
    found: dict[int, Outcome] = {}
    with interruptible() as interrupt, closing(fits_of(recipes, snapshot, ranks)) as all_fits:
        # Ranks that stopped at steps of their own would wait for each other.
        interrupt.alone = isinstance(ranks, Alone)
        for places, fits in all_fits:
            fits.interrupt = interrupt
            if snapshot is not None:
                fits.restore(snapshot)
            ready()
            found.update(zip(places, _completed(fits, observer, checkpoint, interrupt), strict=True))
    return [found[place] for place in range(len(recipes))]


def restored(recipe: Recipe, snapshot: Snapshot) -> tuple[Problem, Fitted]:
    """A recipe's problem and fitted programs as a snapshot has them, without taking a step."""
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        engine = start(recipe, isolation)
        # The optimizer may be an object that is not known here: the result is read, not computed anew.
        engine.restore_result(snapshot)
        return engine.problem, engine.fitted()


def _completed(fits: Fits, observer: Observer, checkpoint: Checkpoint | None, interrupt: Interrupt) -> list[Outcome]:
    status = "failed"
    try:
        _run(fits, observer, checkpoint, interrupt)
        outcomes = fits.outcomes(interrupt, observer.scoring)
        statuses = {outcome.status for outcome in outcomes}
        status = next(each for each in ("interrupted", "finished", "diverged") if each in statuses)
    finally:
        observer.ended(status)
    return outcomes


def _run(fits: Fits, observer: Observer, checkpoint: Checkpoint | None, interrupt: Interrupt) -> None:
    """Take the remaining steps; a checkpoint is saved at the end, however it comes."""
    every = fits.settings.checkpoint_every
    observer.started(fits.step_count, fits.total)
    clock = _Clock(fits)
    try:
        while fits.running and not interrupt.requested:
            fits.advance(_next_stop(fits, every))
            observer.stepped(fits.step_count, fits.last_loss)
            due = bool(every) and fits.step_count % every == 0
            if (fits.running and due) or fits.step_count == fits.total:
                fits.demand_finite_parameters()
            if fits.running and due and checkpoint:
                clock.read()
                checkpoint.save(fits.snapshot())
    finally:
        clock.read()
        if checkpoint and fits.at_boundary:
            checkpoint.save(fits.snapshot())


def _next_stop(fits: Fits, every: int) -> int:
    return min(fits.total, (fits.step_count // every + 1) * every) if every else fits.total


class _Clock:
    """Adds the time since it was last read to the fits' seconds."""

    def __init__(self, fits: Fits) -> None:
        self.fits = fits
        self.last = time.perf_counter()

    def read(self) -> None:
        now = time.perf_counter()
        self.fits.seconds += now - self.last
        self.last = now
