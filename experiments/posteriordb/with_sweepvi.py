"""sweepvi without a number from the user: ``preset=auto``."""

from __future__ import annotations

from fitted import DRAWS, Fitted

import sweepvi
from sweepvi.problem import Problem


def fit(problem: Problem, seed: int) -> Fitted:
    """Fit a problem whose data is in double precision."""
    result = sweepvi.fit(problem.model, kwargs=problem.kwargs, preset="auto", seed=seed)  # pyright: ignore
    return Fitted(result.sample(DRAWS), None, result.seconds, None, result.status)
