"""Rungs tried one after another, until a fit can be trusted; the best is the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweepvi.errors import ConfigError
from sweepvi.preset.rules import Rung
from sweepvi.results import FitResult


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
        try:
            result = fit(number, rung)
        except ConfigError as error:
            if number + 1 == len(rungs) and not any(attempt.result for attempt in attempts):
                raise
            attempts.append(Attempt(rung.name, None, str(error)))
            continue
        if rung.note:
            result.notes.append(rung.note)
        attempts.append(Attempt(rung.name, result, ""))
        if _ends(result):
            break
    best = max((attempt.result for attempt in attempts if attempt.result is not None), key=_rank)
    best.attempts = [attempt.summary() for attempt in attempts]
    return best


def _ends(result: FitResult) -> bool:
    return result.status == "interrupted" or (result.verdict is not None and result.verdict.trust == "yes")


def _rank(result: FitResult) -> tuple[bool, float]:
    finished = result.status == "finished" and result.elbo is not None
    return finished, result.elbo if result.elbo is not None else float("-inf")
