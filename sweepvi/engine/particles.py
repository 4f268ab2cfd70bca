"""Several particles whose loss is the mean of each one's: what a few of them show need not be shown by all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sweepvi.estimators.estimator import Elbo, Estimator


def separate(estimator: Estimator) -> bool:
    """Whether an estimator has several particles, draws them one after another, and takes their mean."""
    vectorized = getattr(estimator, "vectorize_particles", False)
    return estimator.averages_particles and estimator.num_particles > 1 and not vectorized


@contextmanager
def at_most(particles: int, elbo: Elbo, estimator: Estimator) -> Iterator[None]:
    """Inside, an estimator's object takes no more particles than that, where they are :func:`separate`."""
    if not separate(estimator):
        yield
        return
    several: Any = elbo
    several.num_particles = min(particles, estimator.num_particles)
    try:
        yield
    finally:
        several.num_particles = estimator.num_particles
