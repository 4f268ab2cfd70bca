"""``eight_schools_noncentered``: coaching in eight schools, with effects as scaled standard normals.

Rubin, "Estimation in Parallel Randomized Experiments", 1981: mu ~ N(0, 5); tau ~ C⁺(0, 5); theta_trans[j] ~ N(0, 1);
theta = mu + tau·theta_trans; y[j] ~ N(theta[j], sigma[j]).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def arguments(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """What :func:`model` takes, of posteriordb's data."""
    return {name: torch.tensor(data[name], dtype=torch.float64) for name in ("y", "sigma")}


def model(y: Tensor, sigma: Tensor) -> None:
    """Estimated effects ``y`` with their standard errors ``sigma``, both of shape [schools]."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        standardized = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * standardized)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)
