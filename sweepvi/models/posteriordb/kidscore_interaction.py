"""``kidscore_interaction``: test scores of children by school and IQ of the mother, and their product.

Gelman & Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2006, chapter 3: beta flat;
sigma ~ C⁺(0, 2.5); kid_score ~ N(beta[1] + beta[2]·mom_hs + beta[3]·mom_iq + beta[4]·mom_hs·mom_iq, sigma).
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
    hs, iq, score = (torch.tensor(data[name], dtype=torch.float64) for name in ("mom_hs", "mom_iq", "kid_score"))
    return {"x": torch.stack([torch.ones_like(hs), hs, iq, hs * iq], dim=-1), "kid_score": score}


def model(x: Tensor, kid_score: Tensor) -> None:
    """Scores ``kid_score`` of shape [children], predicted by ``x`` of shape [children, 4]."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (x.shape[-1],)))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("children", len(kid_score)):
        pyro.sample("kid_score", dist.Normal((x * beta).sum(-1), sigma), obs=kid_score)
