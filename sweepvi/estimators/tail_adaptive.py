"""The tail-adaptive f-divergence: Wang, Liu & Liu, "Variational Inference with Tail-adaptive f-Divergence", 2018,
algorithm 1.

With w = p(x, z) / q(z), the gradient of an f-divergence is −E γ(w) (∂ log w / ∂z) (∂z / ∂φ), γ(w) = w² f″(w) (equation
5). Here γ of a particle is F(w)^β, F(w) the share of particles whose weights are at least as large: with β < 0, the
guide covers more of the posterior than by the ELBO, and unlike that of an alpha-divergence, γ has no heavy tails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pyro.infer.enum import get_importance_trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches, path_only
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, weighted
from sweepvi.keys import Key


@dataclass(frozen=True)
class TailAdaptive(ParticleEstimator):
    """TraceTailAdaptive_ELBO, put right: an f-divergence that adapts to the tail of the weights; reports -ELBO.

    Pyro 1.9.2 takes the order of the particles for their ranks, and differentiates the guide's density by its
    parameters, too, which under unequal weights has no mean of zero. Parameters of the model follow the mean of the
    gradients of log p under the same weights, as there.
    """

    objective: ClassVar[str] = "tail-adaptive f-divergence"
    objective_keys: ClassVar[tuple[str, ...]] = ("tail_adaptive_beta",)
    varies: ClassVar[Mapping[str, str]] = {"tail_adaptive_beta": "tail_adaptive_beta"}
    unbiased: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False
    reparameterised_only: ClassVar[bool] = True

    num_particles: Annotated[int, Key("draws among which weights are ranked", ge=2)] = 8
    tail_adaptive_beta: Annotated[
        float, Key("power of the tail probability; nearer to 0, weights are more alike", ge=-1, lt=0)
    ] = -1.0

    def build(self) -> Elbo:
        """A new object."""
        return _TailAdaptive(tail_adaptive_beta=self.tail_adaptive_beta, **self.options())


class _TailAdaptive(BoundElbo):
    """Takes log q from a second run of the guide, with its parameters held fixed: what remains is the path."""

    def bound(self, log_weight: Tensor) -> Tensor:
        """The ELBO: the divergence itself has no value."""
        return log_weight.mean(0)

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """Weights by rank, held fixed, times log weights."""
        log_weight = particles.log_weight
        return (tail_weights(log_weight.detach(), self.tail_adaptive_beta) * log_weight).sum()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with SameMinibatches():
            traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
            model_trace, guide_trace = traces
            fixed = path_only(guide, guide_trace, args, kwargs)
        return weighted(model_trace, prune_subsample_sites(fixed))


def tail_weights(log_weight: Tensor, beta: float) -> Tensor:
    """What each particle counts for, entry by entry of the plates.

    Args:
        log_weight: log p − log q, shape [particles, *plates].
        beta: the power of the tail probability.

    Returns:
        Tensor: of the same shape; sums to 1 over particles.

    """
    at_least_as_large = log_weight.unsqueeze(0) >= log_weight.unsqueeze(1)
    power = at_least_as_large.to(log_weight.dtype).mean(1).pow(beta)
    return power / power.sum(0)
