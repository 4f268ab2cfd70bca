"""``fit``: the only loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.checkpoint import Checkpoint, Snapshot
from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.environment import environment
from sweepvi.engine.full_data import coverage
from sweepvi.engine.interrupt import Interrupt, interruptible
from sweepvi.engine.observer import Observer
from sweepvi.engine.score import log_weights
from sweepvi.engine.trial_run import start
from sweepvi.problem import Problem
from sweepvi.programs import Fitted, reachable_modules
from sweepvi.recipe import Recipe

Status: TypeAlias = Literal["finished", "diverged", "interrupted"]

SKIPS_IN_A_ROW = 100
"""Under ``on_nonfinite=skip``, this many updates left out one after another end the fit as diverged."""


@dataclass
class Outcome:
    """What a fit computed."""

    status: Status
    steps: int
    """Steps taken, those left out under ``on_nonfinite=skip`` among them."""
    message: str
    """Why the fit ended, when it did not finish."""
    losses: Tensor
    """Estimate of -ELBO at each step, float64; one more than ``steps`` if the last one diverged."""
    rates: dict[str, Tensor]
    """Effective step size at each step, float64, by label of the parameter group."""
    skipped: list[int]
    """Steps left out, from 1."""
    log_weights: Tensor
    """log p - log q of fresh draws at the end, float64; empty unless the fit finished."""
    seconds: float
    """Time spent on steps, over all resumptions; scoring not counted."""
    problem: Problem
    """The model with its data as it ran: cast, and on the device."""
    fitted: Fitted
    """The model and the guide, ready to run."""
    snapshot: Snapshot
    """All that a continuation needs."""
    engine: str = "eager"
    data_size: int | None = None
    """Entries of observed sites, with those outside of minibatches; None unless the fit finished."""
    score_note: str = ""
    """What a reader of the score must know."""


@dataclass
class _Ledger:
    """What is recorded a step."""

    losses: list[float] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def into(self, snapshot: Snapshot) -> Snapshot:
        rates = {f"rates/{label}": _tensor(values) for label, values in self.rates.items()}
        meta = {"skipped": self.skipped, "seconds": self.seconds}
        snapshot.put("ledger", {"losses": _tensor(self.losses), **rates}, meta)
        return snapshot

    def add(self, loss: float, rates: Mapping[str, float]) -> None:
        """Record a step; a group of parameters that appears late has had no step size before."""
        for label in rates:
            self.rates.setdefault(label, [math.nan] * len(self.losses))
        for label, values in self.rates.items():
            values.append(rates.get(label, math.nan))
        self.losses.append(loss)

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Ledger:
        tensors, meta = snapshot.get("ledger")
        rates = {k.removeprefix("rates/"): v.tolist() for k, v in tensors.items() if k.startswith("rates/")}
        return cls(tensors["losses"].tolist(), rates, meta["skipped"], meta["seconds"])


def _tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


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
        ConfigError: if the model does not run on its data.
        CheckpointError: if the checkpoint to resume from is missing, damaged or of another fit.

    """
    observer = observer or Observer()
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation, interruptible() as interrupt:
        engine, ledger = start(recipe, isolation), _Ledger()
        if resume:
            assert checkpoint is not None
            snapshot = checkpoint.load()
            engine.restore(snapshot)
            if engine.step_count == recipe.settings.steps:
                engine.meet_late_parameters()
            ledger = _Ledger.of(snapshot)
        ready()
        status: str = "failed"
        try:
            status, message = _run(engine, ledger, observer, checkpoint, interrupt)
            outcome = _outcome(engine, ledger, status, message)
            if status == "finished":
                _score(outcome, engine, observer, interrupt)
                status = outcome.status
        finally:
            observer.ended(status)
    return outcome


def restored(recipe: Recipe, snapshot: Snapshot) -> tuple[Problem, Fitted]:
    """A recipe's problem and fitted programs as a snapshot has them, without taking a step."""
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        engine = start(recipe, isolation)
        # The optimizer may be an object that is not known here: the result is read, not computed anew.
        engine.restore_result(snapshot)
        return engine.problem, engine.fitted()


def _run(
    engine: EagerEngine,
    ledger: _Ledger,
    observer: Observer,
    checkpoint: Checkpoint | None,
    interrupt: Interrupt,
) -> tuple[Status, str]:
    """Take the remaining steps; a checkpoint is saved at the end, however it comes."""
    settings = engine.recipe.settings
    observer.started(engine.step_count, settings.steps)
    clock = _Clock(ledger)
    try:
        while engine.step_count < settings.steps:
            if interrupt.requested:
                return "interrupted", f"interrupted after step {engine.step_count}"
            try:
                _take_step(engine, ledger, settings.on_nonfinite == "skip")
            except NonFiniteError as error:
                return "diverged", f"step {engine.step_count + 1}: {error}"
            observer.stepped(engine.step_count, ledger.losses[-1])
            due = settings.checkpoint_every and engine.step_count % settings.checkpoint_every == 0
            if due or engine.step_count == settings.steps:
                try:
                    engine.demand_finite_parameters()
                except NonFiniteError as error:
                    return "diverged", f"after step {engine.step_count}: {error}"
            if due and checkpoint:
                clock.read()
                checkpoint.save(ledger.into(engine.snapshot()))
        return "finished", ""
    finally:
        clock.read()
        if checkpoint and engine.at_boundary:
            checkpoint.save(_whole_steps(ledger, engine.step_count).into(engine.snapshot()))


def _take_step(engine: EagerEngine, ledger: _Ledger, may_skip: bool) -> None:
    try:
        ledger.add(engine.step(), engine.last_rates)
    except NonFiniteError as error:
        ledger.add(error.loss, engine.last_rates)
        last = ledger.skipped[-SKIPS_IN_A_ROW:]
        too_many = len(last) == SKIPS_IN_A_ROW and last[0] == engine.step_count + 1 - SKIPS_IN_A_ROW
        if not may_skip or too_many:
            raise
        engine.skip()
        ledger.skipped.append(engine.step_count)


def _whole_steps(ledger: _Ledger, steps: int) -> _Ledger:
    """The ledger without the row of a step that diverged: a continuation takes that step anew."""
    rates = {label: values[:steps] for label, values in ledger.rates.items()}
    return _Ledger(ledger.losses[:steps], rates, ledger.skipped, ledger.seconds)


class _Clock:
    """Adds the time since it was last read to the ledger."""

    def __init__(self, ledger: _Ledger) -> None:
        self.ledger = ledger
        self.last = time.perf_counter()

    def read(self) -> None:
        now = time.perf_counter()
        self.ledger.seconds += now - self.last
        self.last = now


def _outcome(engine: EagerEngine, ledger: _Ledger, status: Status, message: str) -> Outcome:
    return Outcome(
        status=status,
        steps=engine.step_count,
        message=message,
        skipped=ledger.skipped,
        log_weights=torch.empty(0, dtype=torch.float64),
        seconds=ledger.seconds,
        problem=engine.problem,
        fitted=engine.fitted(),
        snapshot=_whole_steps(ledger, engine.step_count).into(engine.snapshot()),
        losses=_tensor(ledger.losses),
        rates={label: _tensor(values) for label, values in ledger.rates.items()},
    )


def _score(outcome: Outcome, engine: EagerEngine, observer: Observer, interrupt: Interrupt) -> None:
    settings = engine.recipe.settings
    draws = settings.score_draws
    with engine.optimization.evaluated(), outcome.fitted.late():
        seen = coverage(engine.programs, engine.problem, settings.score_minibatches)
        outcome.data_size, outcome.score_note = seen.data_size, seen.note
        with seen.plates():
            outcome.log_weights = log_weights(engine.programs, engine.problem, draws, interrupt, observer.scoring)
    if len(outcome.log_weights) < draws:
        outcome.status, outcome.message = "interrupted", "interrupted while the result was scored"
