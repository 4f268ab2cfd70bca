"""``low_dim_gauss_mix``: a mixture of two normals.

Stan Development Team, posteriordb's ``low_dim_gauss_mix``: mu ordered, mu[k] ~ N(0, 2); sigma[k] ~ half-N(0, 2);
theta ~ Beta(5, 5); y[n] ~ theta·N(mu[1], sigma[1]) + (1 − theta)·N(mu[2], sigma[2]).
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
    """Independent values ``y`` of shape [values]."""
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    pyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum(-1))
    sigma = pyro.sample("sigma", dist.HalfNormal(y.new_full((2,), 2.0)).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(torch.stack([theta, 1 - theta], dim=-1))
    with pyro.plate("values", len(y)):
        pyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)
