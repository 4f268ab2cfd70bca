"""``kilpisjarvi``: summer temperatures at Kilpisjärvi, by year, without centring the years.

Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-Normalization, Folding, and Localization", 2021:
alpha ~ N(pmualpha, psalpha); beta ~ N(pmubeta, psbeta); sigma flat on (0, ∞); y ~ N(alpha + beta·x, sigma).
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
    """What :func:`model` takes, of posteriordb's data."""
    names = ("x", "y", "pmualpha", "psalpha", "pmubeta", "psbeta")
    return {name: torch.tensor(data[name], dtype=torch.float64) for name in names}


def model(x: Tensor, y: Tensor, pmualpha: Tensor, psalpha: Tensor, pmubeta: Tensor, psbeta: Tensor) -> None:
    """Temperatures lie around a line.

    Args:
        x: years, shape [years].
        y: temperatures, shape [years].
        pmualpha: prior mean of the line's intercept; ``psalpha`` is its standard deviation.
        psalpha: see ``pmualpha``.
        pmubeta: prior mean of the line's slope; ``psbeta`` is its standard deviation.
        psbeta: see ``pmubeta``.

    """
    alpha = pyro.sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = pyro.sample("beta", dist.Normal(pmubeta, psbeta))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)
