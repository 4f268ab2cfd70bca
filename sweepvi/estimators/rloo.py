"""REINFORCE with a leave-one-out baseline: Kool, van Hoof & Welling, "Buy 4 REINFORCE Samples, Get a Baseline for
Free!", 2019; Mnih & Rezende, "Variational Inference for Monte Carlo Objectives", 2016, section 2.5.

Of K particles, each has the mean cost of the K − 1 others as its baseline: they are independent of it, and the better
the more there are. Here it is so site by site, with each site's own downstream cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor

from sweepvi.estimators.costs import CostElbo, Evaluation, ScoreTerm
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.keys import Key

PARTICLES = "num_particles_vectorized"
"""Pyro's name of the plate of particles that are evaluated at once."""


@dataclass(frozen=True)
class RLOO(ParticleEstimator):
    """Score-function gradients in which the other particles are each one's baseline; nothing to learn or to tune."""

    num_particles: Annotated[int, Key("draws averaged in each gradient", ge=2)] = 4

    def build(self) -> Elbo:
        """A new ELBO object."""
        return _RLOO(**self.options())


class _RLOO(CostElbo):
    """Subtracts the others' mean cost from each particle's."""

    def surrogate_loss(self, evaluations: list[Evaluation]) -> Tensor:
        """Scores times costs less those of the others."""
        total: Any = -sum(one.path for one in evaluations)
        for name in sorted({name for one in evaluations for name in one.terms}):
            terms = [one.terms[name] for one in evaluations if name in one.terms]
            score, cost = _stacked(terms)
            total = total - (score * (cost - leave_one_out(cost))).sum()
        return total


def leave_one_out(values: Tensor) -> Tensor:
    """For each entry of the first dimension, the mean of the others; zero if there is only one."""
    others = values.shape[0] - 1
    return (values.sum(0, keepdim=True) - values) / others if others else torch.zeros_like(values)


def _stacked(terms: list[ScoreTerm]) -> tuple[Tensor, Tensor]:
    """Scores and costs, particles in the first dimension of both."""
    [first, *others] = terms
    at_once = any(frame.name == PARTICLES for frame in first.site["cond_indep_stack"])
    if at_once and not others:
        # A cost that all particles share, as of a draw that the program branches on, is the same for each.
        return first.score, first.cost.expand_as(first.score)
    shape = broadcast_shape(first.score.shape, first.cost.shape)
    return (
        torch.stack([term.score.expand(shape) for term in terms]),
        torch.stack([term.cost.expand(shape) for term in terms]),
    )
