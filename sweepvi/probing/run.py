"""The probe itself: every row in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sweepvi.engine.interrupt import Interrupt, interruptible
from sweepvi.errors import ConfigError, Problem, raise_if, unique
from sweepvi.estimators import Estimator
from sweepvi.probing.agreement import compared
from sweepvi.probing.candidates import LeftOut, Plan, label_of, words_of
from sweepvi.probing.measuring import StoppedError, measured
from sweepvi.probing.place import Place, opened
from sweepvi.probing.ranking import blocks
from sweepvi.probing.result import ProbeResult
from sweepvi.probing.row import Row
from sweepvi.provenance import provenance
from sweepvi.recipe import Recipe


def run(
    recipe: Recipe,
    candidates: Sequence[Estimator],
    left_out: Sequence[LeftOut],
    plan: Plan,
    place: Place,
    strict: bool,
    tell: Callable[[str], None],
) -> ProbeResult:
    """Measure every candidate.

    Args:
        recipe: the fit whose gradients are measured.
        candidates: estimators, each with its number of particles.
        left_out: what has been left out already, and why.
        plan: how often.
        place: at which parameters.
        strict: whether a candidate that does not fit the problem is an error; else it is left out.
        tell: is told of every row that begins, in a line.

    Returns:
        The rows; those that are whole, if the user interrupts.

    Raises:
        ConfigError: if the recipe does not run, or if a candidate does not fit it and must.

    """
    rows: list[Row] = []
    with interruptible() as interrupt:
        fitting, unfitting = _tried(recipe, candidates, place, strict)
        try:
            for number, estimator in enumerate(fitting, start=1):
                tell(f"row {number}/{len(fitting)}: {_words(estimator)}")
                rows.append(measured(recipe, estimator, place, plan, lambda: _stop_if(interrupt)))
        except StoppedError:
            pass
    return ProbeResult(
        status="finished" if len(rows) == len(fitting) else "interrupted",
        rows=_with_distances(rows, plan.draws),
        planned=len(fitting),
        left_out=(*left_out, *unfitting),
        configured=_words(recipe.estimator),
        place=place.words,
        draws=plan.draws,
        warmup=plan.warmup,
        config=dict(recipe.config),
        provenance=provenance(),
    )


def _tried(
    recipe: Recipe, candidates: Sequence[Estimator], place: Place, strict: bool
) -> tuple[list[Estimator], list[LeftOut]]:
    """The candidates that run, and the others; nothing is measured before all of them are known."""
    fitting: list[Estimator] = []
    left_out: list[LeftOut] = []
    problems: list[Problem] = []
    for estimator in candidates:
        try:
            with opened(replace(recipe, estimator=estimator), place):
                fitting.append(estimator)
        except ConfigError as error:
            problems += error.problems
            reason = "; ".join(p.message if p.key == "estimator" else str(p) for p in error.problems)
            left_out.append(LeftOut(label_of(estimator), estimator.num_particles, reason))
    if strict or not fitting:
        raise_if(unique(problems))
    return fitting, left_out


def _words(estimator: Estimator) -> str:
    return words_of(label_of(estimator), estimator.num_particles)


def _stop_if(interrupt: Interrupt) -> None:
    if interrupt.requested:
        raise StoppedError


def _with_distances(rows: Sequence[Row], draws: int) -> tuple[Row, ...]:
    """The rows in their order, each compared with those that estimate the same gradient."""
    by_words = {row.words: row for block in blocks(rows) for row in compared(block.rows, draws)}
    return tuple(by_words[row.words] for row in rows)
