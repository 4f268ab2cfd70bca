"""Doubly reparameterised gradients: Tucker, Lawson, Gu & Maddison, "Doubly Reparameterized Gradient Estimators for
Monte Carlo Objectives", 2019, equation 8.

Of the importance-weighted bound, with normalised weights w̃: the model's parameters have Σ w̃_k ∂ log w_k, the guide's
Σ w̃_k² (∂ log w_k / ∂z_k) (∂z_k / ∂φ). Unlike that of ``iwae``, its signal does not drown as particles are added
(Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better", 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches, replayed, stochastic
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, like_draws, stacked, weighted
from sweepvi.keys import Key


@dataclass(frozen=True)
class DReG(ParticleEstimator):
    """The importance-weighted bound by doubly reparameterised gradients: less noise the more particles."""

    objective: ClassVar[str] = "-IWAE bound"
    reparameterised_only: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False

    num_particles: Annotated[int, Key("draws in each bound: with more, it is tighter", ge=2)] = 8

    def build(self) -> Elbo:
        """A new object."""
        return _DReG(**self.options())


@dataclass(frozen=True)
class _Run:
    """One run of guide and model, and what it takes to run them again in the same way."""

    model: Any
    guide: Any
    args: Any
    kwargs: Any
    guide_trace: Any
    weighted: Weighted
    minibatches: SameMinibatches


class _DReG(BoundElbo):
    """Runs guide and model again once the weights are known: they enter a gradient again on its way to a draw."""

    def particles(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Weighted:
        """The weights of all particles, with gradients that make them those of the bound, if gradients are on."""
        runs: list[Any] = list(self._get_traces(model, guide, args, kwargs))
        first = self._joined([run.weighted for run in runs])
        if not torch.is_grad_enabled():
            return first
        normalised = torch.softmax(first.log_weight.detach(), 0)
        shares = [normalised] if self.vectorize_particles else list(normalised)
        return self._joined([_again(run, share) for run, share in zip(runs, shares, strict=True)])

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """Weights, held fixed, times log weights."""
        return (torch.softmax(particles.log_weight.detach(), 0) * particles.log_weight).sum()

    def _joined(self, parts: list[Weighted]) -> Weighted:
        return parts[0] if self.vectorize_particles else stacked(parts)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with SameMinibatches() as minibatches:
            traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        model_trace, guide_trace = traces
        return _Run(model, guide, args, kwargs, guide_trace, weighted(model_trace, guide_trace), minibatches)


def _again(run: _Run, share: Tensor) -> Weighted:
    """The weights of a second run on the same draws, through which gradient flows in proportion to ``share``."""
    draws = {}
    for name, site in stochastic(run.guide_trace).items():
        fixed = site["value"].detach()
        draws[name] = fixed + like_draws(share, site) * (site["value"] - fixed)
    with run.minibatches:
        guide_trace = replayed(run.guide, run.guide_trace, draws, run.args, run.kwargs)
        model = poutine.replay(run.model, trace=guide_trace)
        model_trace = poutine.trace(model).get_trace(*run.args, **run.kwargs)
    guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
    model_trace.compute_log_prob()
    return weighted(model_trace, guide_trace)
