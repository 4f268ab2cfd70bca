"""What estimators of multi-sample bounds share: importance weights of K particles.

Burda, Grosse & Salakhutdinov, "Importance Weighted Autoencoders", 2016. Where all sites are in a plate, such as one
image each with its own latent variables, its entries have weights of their own: the bound is a sum over them, and
much tighter than that of the weights of all together. A minibatch's scale is a factor of the bound, not of the weights.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from pyro.infer.elbo import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import MultiFrameTensor
from torch import Tensor


@dataclass(frozen=True)
class Weighted:
    """The weights of one particle, or of all at once."""

    log_weight: Tensor
    """log p − log q, shape [*plates] or [particles, *plates], of the plates that all sites are in."""
    score: Tensor | None
    """log q of the draws that cannot be differentiated, of the same shape; None if there are none."""
    scale: float
    """Factor on the bound: total size / minibatch size."""


def weighted(model_trace: Any, guide_trace: Any) -> Weighted:
    """The importance weights of a pair of traces whose densities have been computed."""
    sites = [
        (sign, site)
        for sign, trace in ((1, model_trace), (-1, guide_trace))
        for site in trace.nodes.values()
        if site["type"] == "sample"
    ]
    stacks = [frozenset(frame for frame in site["cond_indep_stack"] if frame.vectorized) for _, site in sites]
    common = reduce(frozenset.intersection, stacks)
    scales = {float(site["scale"]) for _, site in sites}
    scale = scales.pop() if len(scales) == 1 else 1.0
    weights, scores = MultiFrameTensor(), MultiFrameTensor()
    for sign, site in sites:
        weights.add((site["cond_indep_stack"], sign * site["log_prob"] / scale))
        if sign < 0 and not getattr(site["fn"], "has_rsample", False):
            scores.add((site["cond_indep_stack"], site["score_parts"].score_function))
    log_weight: Any = weights.sum_to(common)
    score: Any = scores.sum_to(common) if scores else None
    return Weighted(log_weight, score, scale)


def stacked(parts: list[Weighted]) -> Weighted:
    """All particles in the first dimension."""
    scores = [part.score for part in parts if part.score is not None]
    score = torch.stack(scores) if len(scores) == len(parts) else None
    return Weighted(torch.stack([part.log_weight for part in parts]), score, parts[0].scale)


def log_mean(log_weight: Tensor) -> Tensor:
    """The log of the mean weight over particles: shape [*plates]."""
    return torch.logsumexp(log_weight, 0) - math.log(log_weight.shape[0])


class BoundElbo(ELBO):
    """An object whose loss is minus the importance-weighted bound."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound."""
        with torch.no_grad():
            particles = self.particles(model, guide, args, kwargs)
            return -float(log_mean(particles.log_weight).sum()) * particles.scale

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound; its gradient is left in the parameters."""
        particles = self.particles(model, guide, args, kwargs)
        surrogate = self.surrogate_bound(particles) * -particles.scale
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        return -float(log_mean(particles.log_weight.detach()).sum()) * particles.scale

    @abstractmethod
    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """What is differentiated, shape []."""

    def particles(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Weighted:
        """The weights of all particles."""
        parts: list[Any] = list(self._get_traces(model, guide, args, kwargs))
        return parts[0] if self.vectorize_particles else stacked(parts)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        """Pyro's hook: what it passes on are weights here."""
        traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        model_trace, guide_trace = traces
        return weighted(model_trace, guide_trace)


def like_draws(weight: Tensor, site: Any) -> Tensor:
    """A weight by particle and plate, with dimensions of size 1 for the event of a site's draws."""
    return weight.reshape(weight.shape + (1,) * site["fn"].event_dim)
