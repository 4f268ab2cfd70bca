"""``garch11``: a series whose variance follows its own past.

Bollerslev, "Generalized Autoregressive Conditional Heteroskedasticity", 1986. Flat priors on mu, on alpha0 > 0, and on
the triangle alpha1, beta1 > 0, alpha1 + beta1 < 1; s[1]² = sigma1²; s[t]² = alpha0 + alpha1·(y[t−1] − mu)² +
beta1·s[t−1]²; y[t] ~ N(mu, s[t]).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import pad


def arguments(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """What :func:`model` takes, of posteriordb's data."""
    return {name: torch.tensor(data[name], dtype=torch.float64) for name in ("y", "sigma1")}


def model(y: Tensor, sigma1: Tensor) -> None:
    """A series ``y`` of shape [times] that begins with standard deviation ``sigma1``."""
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = pyro.sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
    # Flat on the triangle: the side at alpha1 is of length 1 − alpha1, and beta1 is anywhere on it. The support of a
    # site must not depend on another's value, so what is sampled is beta1's share of the side.
    alpha1 = pyro.sample("alpha1", dist.Beta(1.0, 2.0))
    share = pyro.sample("beta1_share", dist.Uniform(0.0, 1.0))
    beta1 = pyro.deterministic("beta1", (1 - alpha1) * share)
    mu, alpha0, alpha1, beta1 = (value.unsqueeze(-1) for value in (mu, alpha0, alpha1, beta1))
    moved = alpha0 + alpha1 * (y[:-1] - mu) ** 2
    first = (sigma1**2).expand(*moved.shape[:-1], 1)
    variance = decaying_sum(torch.cat([first, moved], dim=-1), beta1)
    # No plate: times are one event, none independent of those before it.
    pyro.sample("y", dist.Normal(mu, variance.sqrt()).to_event(1), obs=y)


def decaying_sum(terms: Tensor, decay: Tensor) -> Tensor:
    """``total[t] = terms[t] + decay * total[t - 1]`` along the last axis, in log₂ of its length sweeps.

    After a sweep, each entry holds the sum of twice as many terms (Hillis & Steele, "Data Parallel Algorithms", 1986).
    """
    reach, length = 1, terms.shape[-1]
    while reach < length:
        terms = terms + decay * pad(terms[..., :-reach], (reach, 0))
        decay, reach = decay**2, 2 * reach
    return terms
