"""sweepvi without a number from the user: ``preset=auto``."""

from __future__ import annotations

import re
import time

from fitted import DRAWS, Fitted

import sweepvi
from sweepvi.problem import Problem


def fit(problem: Problem, seed: int) -> Fitted:
    """Fit a problem whose data is in double precision; the time is that of everything, to the verdict."""
    begun = time.perf_counter()
    result = sweepvi.fit(problem.model, kwargs=problem.kwargs, preset="auto", dtype="float64", seed=seed)
    seconds = time.perf_counter() - begun
    if result.status != "finished" or result.verdict is None or result.posterior is None:
        return Fitted({}, None, seconds, None, note=f"{result.status}: {result.message}")
    weighted = {from_one(row.name): (row.psis_mean, row.psis_sd) for row in result.posterior.rows}
    evaluations = sum(attempt.get("evaluations", 0) for attempt in result.attempts)
    tried = ", ".join(attempt["settings"] for attempt in result.attempts)
    k_hat = result.verdict.numbers["k_hat"]
    note = f"trust: {result.verdict.trust}; {tried}"
    return Fitted(result.sample(DRAWS), k_hat, seconds, evaluations, weighted, note)


def from_one(name: str) -> str:
    """A scalar's name with indices from 1, as Stan has them."""
    return re.sub(r"\d+(?=[,\]])", lambda found: str(int(found[0]) + 1), name)
