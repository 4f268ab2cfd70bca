"""The variational Rényi bound: Li & Turner, "Rényi Divergence Variational Inference", 2016, equations 12 and 15.

log (1/K) Σ (p(x, z_k) / q(z_k))^(1 − α) / (1 − α). With α = 0 it is the importance-weighted bound; as α nears 1, the
ELBO. The smaller α, the larger the bound, and the more of the posterior the guide covers; below 0, it is none of log
p(x) any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, log_mean
from sweepvi.keys import Key


@dataclass(frozen=True)
class Renyi(ParticleEstimator):
    """RenyiELBO: the Rényi bound of order alpha, which decides how much of the posterior the guide covers.

    Pyro 1.9.2 scales the weights of a minibatch instead of the bound, and at draws that cannot be differentiated its
    gradient is the self-normalised one, which is biased; here it is that of the bound.
    """

    objective: ClassVar[str] = "-Rényi bound"
    objective_keys: ClassVar[tuple[str, ...]] = ("alpha",)
    varies: ClassVar[Mapping[str, str]] = {"alpha": "alpha"}

    num_particles: Annotated[
        int, Key("draws in each bound: with more, it is nearer to that of infinitely many", ge=2)
    ] = 8
    alpha: Annotated[float, Key("order of the divergence; 0 is iwae, 1 would be trace")] = 0.0

    def conflicts(self) -> dict[str, str]:
        """There is no bound of order 1."""
        return {"alpha": "must not be 1, at which the bound is the ELBO; use trace"} if self.alpha == 1 else {}

    def build(self) -> Elbo:
        """A new object."""
        return _Renyi(self.alpha, **self.options())


class _Renyi(BoundElbo):
    """Differentiates the bound; draws that cannot be differentiated have the whole bound as their cost."""

    def __init__(self, alpha: float, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = alpha

    def bound(self, log_weight: Tensor) -> Tensor:
        """The Rényi bound."""
        return log_mean((1 - self.alpha) * log_weight) / (1 - self.alpha)

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """The bound, and scores times it."""
        bound = self.bound(particles.log_weight)
        if particles.score is not None:
            bound = bound + bound.detach() * particles.score.sum(0)
        return bound.sum()
