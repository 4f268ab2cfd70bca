"""``nes``: party identification in an American National Election Study, by a linear regression.

Gelman & Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2006, chapter 4: beta flat; sigma
flat on (0, ∞); partyid7 ~ N(beta[1] + beta[2]·real_ideo + beta[3]·race_adj + beta[4]·[age=2] + beta[5]·[age=3] +
beta[6]·[age=4] + beta[7]·educ1 + beta[8]·gender + beta[9]·income, sigma), where age is ``age_discrete``.
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
    of = {name: torch.tensor(values, dtype=torch.float64) for name, values in data.items()}
    ages = [(of["age_discrete"] == age).double() for age in (2, 3, 4)]
    rest = [of[name] for name in ("educ1", "gender", "income")]
    columns = [torch.ones_like(of["partyid7"]), of["real_ideo"], of["race_adj"], *ages, *rest]
    return {"x": torch.stack(columns, dim=-1), "partyid7": of["partyid7"]}


def model(x: Tensor, partyid7: Tensor) -> None:
    """Identifications ``partyid7`` of shape [people], predicted by ``x`` of shape [people, 9]."""
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (x.shape[-1],)))
    sigma = pyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with pyro.plate("people", len(partyid7)):
        pyro.sample("partyid7", dist.Normal((x * beta).sum(-1), sigma), obs=partyid7)
