"""VIMCO: Mnih & Rezende, "Variational Inference for Monte Carlo Objectives", 2016, equations 5 to 7.

The importance-weighted bound, with a leave-one-out baseline for each draw that cannot be differentiated: the bound
that the other particles give when the geometric mean of their weights stands for the missing one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, log_mean
from sweepvi.estimators.rloo import leave_one_out
from sweepvi.keys import Key


@dataclass(frozen=True)
class VIMCO(ParticleEstimator):
    """The importance-weighted bound for discrete variables: the other particles are each one's baseline."""

    objective: ClassVar[str] = "-IWAE bound"

    num_particles: Annotated[int, Key("draws in each bound: with more, it is tighter", ge=2)] = 8

    def build(self) -> Elbo:
        """A new object."""
        return _VIMCO(**self.options())


class _VIMCO(BoundElbo):
    """Scores times the bound less what it would be without the particle."""

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """The bound, and each particle's score times what it brings to the bound."""
        bound = log_mean(particles.log_weight)
        if particles.score is not None:
            learned = bound.detach() - bound_without_each(particles.log_weight.detach())
            bound = bound + (learned * particles.score).sum(0)
        return bound.sum()


def bound_without_each(log_weight: Tensor) -> Tensor:
    """For each particle, the bound with the geometric mean of the others' weights in place of its own; same shape."""
    count = log_weight.shape[0]
    itself = torch.eye(count, dtype=torch.bool, device=log_weight.device)
    itself = itself.reshape(count, count, *([1] * (log_weight.dim() - 1)))
    replaced = torch.where(itself, leave_one_out(log_weight).unsqueeze(1), log_weight.unsqueeze(0))
    return torch.logsumexp(replaced, 1) - math.log(count)
