"""``arK``: an autoregressive process of order K (five, with posteriordb's data).

Stan Development Team, posteriordb's ``arK``: alpha, beta[k] ~ N(0, 10); sigma ~ C⁺(0, 2.5); and for t > K,
y[t] ~ N(alpha + Σₖ beta[k]·y[t−k], sigma).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def arguments(data: Mapping[str, Any]) -> dict[str, Tensor]:
    """What :func:`model` takes, of posteriordb's ``K`` and ``y``."""
    order, y = data["K"], torch.tensor(data["y"], dtype=torch.float64)
    return {"past": y.unfold(0, order, 1)[:-1].flip(-1), "y": y[order:]}


def model(past: Tensor, y: Tensor) -> None:
    """A value is normal around a linear function of those before it.

    Args:
        past: the K values before each of ``y``, the latest first, shape [times, K].
        y: shape [times].

    """
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(past.new_zeros(past.shape[-1]), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("times", len(y)):
        pyro.sample("y", dist.Normal(alpha + (past * beta).sum(-1), sigma), obs=y)
