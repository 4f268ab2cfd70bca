"""``hmm_example``: two hidden states, of which each emits normals around its own mean.

Stan User's Guide, "Hidden Markov models": the rows theta1 and theta2 of the transition matrix are flat on the simplex;
mu is positive and ordered, mu[1] ~ N(3, 1), mu[2] ~ N(10, 1); y[t] ~ N(mu[z_t], 1). States are summed out, with no
probability for the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


def arguments(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """What :func:`model` takes, of posteriordb's ``y``."""
    return {"y": torch.tensor(data["y"], dtype=torch.float64)}


def model(y: Tensor) -> None:
    """A series ``y`` of shape [times]."""
    flat = dist.Dirichlet(y.new_ones(2))
    theta = torch.stack([pyro.sample("theta1", flat), pyro.sample("theta2", flat)], dim=-2)
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(y.new_tensor([3.0, 10.0]), 1.0).log_prob(mu).sum(-1))
    emitted = dist.Normal(mu.unsqueeze(-2), 1.0).log_prob(y.unsqueeze(-1))
    pyro.factor("y", log_evidence(theta.log(), emitted))


def log_evidence(transition: Tensor, emitted: Tensor) -> Tensor:
    """The log probability of a series, summed over all paths of states: the forward algorithm.

    Args:
        transition: log probability of going from a state (row) to a state, shape [..., states, states].
        emitted: log probability of each value in each state, shape [..., times, states].

    Returns:
        Shape [...]. The first state has no probability of its own.

    """
    steps = transition.unsqueeze(-3) + emitted[..., 1:, None, :]
    paths = emitted[..., 0, :].unsqueeze(-1) + chained(steps)
    return paths.flatten(-2).logsumexp(-1)


def chained(steps: Tensor) -> Tensor:
    """The product of matrices given by their logarithms, in order: [..., times, n, n] to [..., n, n].

    Neighbours are multiplied until one is left, so that the length of the program is logarithmic in the times
    (Särkkä & García-Fernández, "Temporal Parallelization of Bayesian Smoothers", 2021).
    """
    while (times := steps.shape[-3]) > 1:
        even = times - times % 2
        left, right = steps[..., 0:even:2, :, :], steps[..., 1:even:2, :, :]
        product = (left.unsqueeze(-1) + right.unsqueeze(-3)).logsumexp(-2)
        steps = torch.cat([product, steps[..., even:, :, :]], dim=-3)
    return steps.squeeze(-3)
