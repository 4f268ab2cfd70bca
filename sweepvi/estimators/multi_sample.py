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

    log_p: Tensor
    """Shape [*plates] or [particles, *plates], of the plates that all sites are in."""
    log_q: Tensor
    """Of the same shape."""
    score: Tensor | None
    """log q of the draws that cannot be differentiated, of the same shape; None if there are none."""
    scale: float
    """Factor on the bound: total size / minibatch size."""

    @property
    def log_weight(self) -> Tensor:
        """The logarithm of p / q."""
        return self.log_p - self.log_q


def weighted(model_trace: Any, guide_trace: Any) -> Weighted:
    """The importance weights of a pair of traces whose densities have been computed."""
    in_model, in_guide = _samples(model_trace), _samples(guide_trace)
    sites = [*in_model, *in_guide]
    stacks = [frozenset(frame for frame in site["cond_indep_stack"] if frame.vectorized) for site in sites]
    common = reduce(frozenset.intersection, stacks)
    scales = {float(site["scale"]) for site in sites}
    scale = scales.pop() if len(scales) == 1 else 1.0
    scored = [site for site in in_guide if not getattr(site["fn"], "has_rsample", False)]
    log_p: Any = _sum(common, in_model, [site["log_prob"] / scale for site in in_model])
    log_q: Any = _sum(common, in_guide, [site["log_prob"] / scale for site in in_guide])
    score: Any = _sum(common, scored, [site["score_parts"].score_function for site in scored])
    return Weighted(log_p, log_q if in_guide else torch.zeros_like(log_p), score if scored else None, scale)


def _samples(trace: Any) -> list[Any]:
    return [site for site in trace.nodes.values() if site["type"] == "sample"]


def _sum(plates: Any, sites: list[Any], terms: list[Tensor]) -> Any:
    """The sum of terms over sites, and over all plates but ``plates``."""
    pairs = zip(sites, terms, strict=True)
    return MultiFrameTensor(*((site["cond_indep_stack"], term) for site, term in pairs)).sum_to(plates)


def stacked(parts: list[Weighted]) -> Weighted:
    """All particles in the first dimension."""
    scores = [part.score for part in parts if part.score is not None]
    score = torch.stack(scores) if len(scores) == len(parts) else None
    log_p, log_q = torch.stack([part.log_p for part in parts]), torch.stack([part.log_q for part in parts])
    return Weighted(log_p, log_q, score, parts[0].scale)


def log_mean(log_weight: Tensor) -> Tensor:
    """The log of the mean weight over particles: shape [*plates]."""
    return torch.logsumexp(log_weight, 0) - math.log(log_weight.shape[0])


class BoundElbo(ELBO):
    """An object whose loss is minus a bound: the importance-weighted one, if :meth:`bound` is not another."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound."""
        with torch.no_grad():
            particles = self.particles(model, guide, args, kwargs)
            return -self.bound(particles.log_weight).sum().item() * particles.scale

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound; its gradient is left in the parameters."""
        particles = self.particles(model, guide, args, kwargs)
        surrogate = self.surrogate_bound(particles) * -particles.scale
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        return -self.bound(particles.log_weight).sum().item() * particles.scale

    def bound(self, log_weight: Tensor) -> Tensor:
        """The bound of log weights of shape [particles, *plates]: shape [*plates]."""
        return log_mean(log_weight)

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
