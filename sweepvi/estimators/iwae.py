"""The importance-weighted bound: Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", 2016, equation 8.

log (1/K) Σ p(x, z_k) / q(z_k), a lower bound of log p(x) that is tighter the more particles there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, log_mean
from sweepvi.keys import Key


@dataclass(frozen=True)
class IWAE(ParticleEstimator):
    """The importance-weighted bound of several draws; for discrete variables rather vimco."""

    objective: ClassVar[str] = "-IWAE bound"

    num_particles: Annotated[int, Key("draws in each bound: with more, it is tighter", ge=2)] = 8

    def build(self) -> Elbo:
        """A new object."""
        return _IWAE(**self.options())


class _IWAE(BoundElbo):
    """Differentiates the bound; draws that cannot be differentiated have the whole bound as their cost."""

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """The bound, and scores times it."""
        bound = log_mean(particles.log_weight)
        if particles.score is not None:
            bound = bound + bound.detach() * particles.score.sum(0)
        return bound.sum()
