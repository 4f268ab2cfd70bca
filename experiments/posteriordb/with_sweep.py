"""sweepvi's race of presets, ``sweep=auto``: no number from the user, and the best of a dozen trials."""

from __future__ import annotations

import time

from fitted import DRAWS, Fitted
from with_sweepvi import from_one

import sweepvi
from sweepvi.problem import Problem


def fit(problem: Problem, seed: int) -> Fitted:
    """Race presets for a problem whose data is in double precision, and fit the best."""
    begun = time.perf_counter()
    seeds = {"engine.seed": [2 * seed, 2 * seed + 1]}
    tuned = sweepvi.tune(problem.model, kwargs=problem.kwargs, sweep="auto", space=seeds, dtype="float64")
    if tuned.best is None:
        return Fitted({}, None, time.perf_counter() - begun, None, note=tuned.status)
    result = sweepvi.fit(problem.model, kwargs=problem.kwargs, **tuned.best.settings)
    seconds = time.perf_counter() - begun
    if result.status != "finished" or result.verdict is None or result.posterior is None:
        return Fitted({}, None, seconds, None, note=f"{result.status}: {result.message}")
    weighted = {from_one(row.name): (row.psis_mean, row.psis_sd) for row in result.posterior.rows}
    note = f"trust: {result.verdict.trust}; best of {len(tuned.trials)}: {tuned.best.params}"
    return Fitted(result.sample(DRAWS), result.verdict.numbers["k_hat"], seconds, None, weighted, note)
