"""sweepvi without a number from the user: ``preset=auto``."""

from __future__ import annotations

import time

from fitted import DRAWS, Fitted

import sweepvi
from sweepvi.problem import Problem


def fit(problem: Problem, seed: int) -> Fitted:
    """Fit a problem whose data is in double precision; the time is that of everything, to the verdict."""
    begun = time.perf_counter()
    result = sweepvi.fit(problem.model, kwargs=problem.kwargs, preset="auto", dtype="float64", seed=seed)
    seconds = time.perf_counter() - begun
    if result.status != "finished" or result.verdict is None:
        return Fitted({}, None, seconds, None, f"{result.status}: {result.message}")
    return Fitted(
        result.sample(DRAWS), result.verdict.numbers.get("k_hat"), seconds, None, f"trust: {result.verdict.trust}"
    )
