"""Rungs tried one after another, until a fit can be trusted; the best is the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweepvi.errors import ConfigError
from sweepvi.preset.rules import Rung
from sweepvi.results import FitResult
from sweepvi.verdict import K_GOOD


@dataclass(frozen=True)
class Attempt:
    """A rung that was tried."""

    name: str
    result: FitResult | None
    """None if it could not be run."""
    message: str

    def summary(self) -> dict[str, Any]:
        """What ``result.json`` says of it."""
        result = self.result
        if result is None:
            return {"settings": self.name, "status": "failed", "message": self.message}
        verdict = result.verdict
        return {
            "settings": self.name,
            "status": result.status,
            "message": result.message,
            "elbo": result.elbo,
            "elbo_se": result.elbo_se,
            "k_hat": None if verdict is None else verdict.numbers.get("k_hat"),
            "trust": None if verdict is None else verdict.trust,
            "steps": result.steps,
            "evaluations": result.steps * result.config["estimator"]["num_particles"] * max(1, len(result.restarts)),
            "seconds": result.seconds,
        }


def best_of(rungs: Sequence[Rung], fit: Callable[[int, Rung], FitResult]) -> FitResult:
    """Try rungs; the result with the highest ELBO, with what all attempts came to in ``attempts``.

    Ends at the first result that can be trusted, and when the user interrupts. A rung that cannot be run, such as one
    whose geometry does not exist, is passed over.

    Raises:
        ConfigError: none could be run, the last one for this reason.

    """
    attempts: list[Attempt] = []
    for number, rung in enumerate(rungs):
        if rung.needs_mode is not None and rung.needs_mode != _has_mode(attempts):
            continue
        try:
            result = fit(number, rung)
        except ConfigError as error:
            attempts.append(Attempt(rung.name, None, str(error)))
            if number + 1 == len(rungs) and not any(attempt.result for attempt in attempts):
                raise
            continue
        if rung.note:
            result.notes.append(rung.note)
        attempts.append(Attempt(rung.name, result, ""))
        if _ends(result):
            break
    best = max((attempt.result for attempt in attempts if attempt.result is not None), key=_rank)
    best.attempts = [attempt.summary() for attempt in attempts]
    if best.status == "finished" and any(attempt["status"] == "interrupted" for attempt in best.attempts):
        best.notes.append("preset: interrupted before all was tried that was to be; resume goes on")
    return best


def _has_mode(attempts: Sequence[Attempt]) -> bool:
    """Whether a geometry has found a mode; of fits that came to no end, nothing is known, and the best is hoped for."""
    return any(attempt.result is not None and _may_have_mode(attempt.result) for attempt in attempts)


def _may_have_mode(result: FitResult) -> bool:
    verdict = result.verdict
    return result.status != "finished" or verdict is None or bool(verdict.numbers["modes"])


def _ends(result: FitResult) -> bool:
    """Whether nothing better is worth a try: a fit that can be trusted, and whose weights have finite variance."""
    if result.status == "interrupted":
        return True
    verdict = result.verdict
    if verdict is None or verdict.trust != "yes":
        return False
    k_hat = verdict.numbers["k_hat"]
    # There is none where all draws weigh the same.
    return k_hat is None or k_hat < K_GOOD


def _rank(result: FitResult) -> tuple[bool, float]:
    finished = result.status == "finished" and result.elbo is not None
    return finished, result.elbo if result.elbo is not None else float("-inf")
