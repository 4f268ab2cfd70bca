"""One evaluation of an ELBO, taken apart: its value, its differentiable part, and what each undifferentiable draw cost.

The gradient of an expectation under a distribution whose draws cannot be differentiated is that of ``log q(z)``, the
score, times the part of the ELBO that depends on ``z``, its downstream cost: Schulman, Heess, Weber & Abbeel,
"Gradient Estimation Using Stochastic Computation Graphs", 2015, theorem 1; Ranganath, Gerrish & Blei, "Black Box
Variational Inference", 2014, section 3.1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.util import is_identically_zero
from pyro.infer.elbo import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.infer.util import MultiFrameTensor
from torch import Tensor

from sweepvi.estimators.dependence import TrackDraws, names_in, plain


@dataclass(frozen=True)
class ScoreTerm:
    """What a draw that cannot be differentiated brings to the gradient."""

    site: Mapping[str, Any]
    """The guide's site, as its trace has it."""
    score: Tensor
    """log q of the draw, of the shape of the site's batch."""
    cost: Tensor
    """The terms of the ELBO that depend on the draw, summed over all plates but the site's own; carries no gradient."""


@dataclass(frozen=True)
class Evaluation:
    """One run of guide and model, or one of all particles at once."""

    elbo: Tensor
    """Shape []; a sum over particles if there are several in it."""
    path: Tensor
    """The same value, but for terms of mean gradient zero that are left out of it: differentiable along draws."""
    terms: dict[str, ScoreTerm]
    guide_trace: Any


class CostElbo(ELBO):
    """What estimators that know each draw's cost have in common."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO, averaged over particles."""
        with torch.no_grad():
            return -sum(one.elbo.item() for one in self.evaluations(model, guide, args, kwargs)) / self.num_particles

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """-ELBO, averaged over particles; its gradient is left in the parameters."""
        evaluations = self.evaluations(model, guide, args, kwargs)
        surrogate = self.surrogate_loss(evaluations) / self.num_particles
        if surrogate.requires_grad:
            surrogate.backward(retain_graph=self.retain_graph)
        return -sum(one.elbo.item() for one in evaluations) / self.num_particles

    @abstractmethod
    def surrogate_loss(self, evaluations: list[Evaluation]) -> Tensor:
        """What is differentiated: a sum over particles, shape []."""

    def evaluations(self, model: Any, guide: Any, args: Any, kwargs: Any) -> list[Evaluation]:
        """One for each particle, or a single one of all of them."""
        return list(self._get_traces(model, guide, args, kwargs))

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Evaluation:
        """Pyro's hook: what it passes on is an evaluation here."""
        with TrackDraws() as draws:
            traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
        model_trace, guide_trace = traces
        return evaluation(model_trace, guide_trace, draws.escaped)


def evaluation(model_trace: Any, guide_trace: Any, escaped: Set[str]) -> Evaluation:
    """Take an evaluation apart; on the draws in ``escaped``, every term depends."""
    elbo: Any = 0.0
    path: Any = 0.0
    downstream: dict[str, MultiFrameTensor] = {}
    for sign, site in _samples(model_trace, guide_trace):
        elbo = elbo + sign * plain(site["log_prob_sum"])
        path = path + _path(sign, site)
        for name in names_in(site["log_prob_sum"]):
            term = sign * plain(site["log_prob"]).detach()
            downstream.setdefault(name, MultiFrameTensor()).add((site["cond_indep_stack"], term))
    terms = {}
    for name, costs in downstream.items():
        site = guide_trace.nodes[name]
        score = plain(site["score_parts"].score_function)
        cost: Any = elbo.detach() if name in escaped else costs.sum_to(site["cond_indep_stack"])
        terms[name] = ScoreTerm(site, score, cost)
    return Evaluation(elbo, path, terms, guide_trace)


def _samples(model_trace: Any, guide_trace: Any) -> list[tuple[int, Any]]:
    """The sites of the ELBO's terms, and their signs."""
    return [
        (sign, site)
        for sign, trace in ((1, model_trace), (-1, guide_trace))
        for site in trace.nodes.values()
        if site["type"] == "sample"
    ]


def _path(sign: int, site: Any) -> Any:
    if sign > 0:
        return plain(site["log_prob_sum"])
    # The score alone has mean zero: nothing of log q is left where draws cannot be differentiated.
    entropy = plain(site["score_parts"].entropy_term)
    return 0.0 if is_identically_zero(entropy) else -entropy.sum()
