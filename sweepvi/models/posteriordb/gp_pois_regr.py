"""``gp_pois_regr``: counts along a line, whose log rate is a Gaussian process.

Stan Development Team, posteriordb's ``gp_pois_regr``: rho ~ Gamma(25, rate 4); alpha ~ half-N(0, 2); f̃[n] ~ N(0, 1);
f = chol(alpha²·exp(−(xᵢ−xⱼ)²/2rho²) + 1e−10·I)·f̃; k[n] ~ Poisson(exp f[n]).
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
    return {name: torch.tensor(data[name], dtype=torch.float64) for name in ("x", "k")}


def model(x: Tensor, k: Tensor) -> None:
    """Counts ``k`` at the places ``x``, both of shape [places]."""
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    f_tilde = pyro.sample("f_tilde", dist.Normal(x.new_zeros(len(x)), 1.0).to_event(1))
    f = pyro.deterministic("f", (factor(x, rho, alpha) @ f_tilde.unsqueeze(-1)).squeeze(-1), event_dim=1)
    pyro.sample("k", dist.Poisson(f.exp()).to_event(1), obs=k)


def factor(x: Tensor, rho: Tensor, alpha: Tensor) -> Tensor:
    """The Cholesky factor of the process's covariance at ``x``, shape [..., places, places]."""
    rho, variance = rho[..., None, None], alpha[..., None, None] ** 2
    distance = x.unsqueeze(-1) - x
    # In single precision 1e-10 is below the rounding of the covariance, and no factor would exist.
    jitter = (100 * torch.finfo(x.dtype).eps * variance).clamp(min=1e-10)
    covariance = variance * torch.exp(-0.5 * (distance / rho) ** 2) + jitter * torch.eye(len(x)).to(x)
    # Unlike torch.linalg.cholesky, this raises nothing where one of many fits has diverged.
    return torch.linalg.cholesky_ex(covariance).L
