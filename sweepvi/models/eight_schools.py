"""Eight schools: how much does coaching help, and how much do schools differ?

Rubin, "Estimation in Parallel Randomized Experiments", 1981; model of Gelman et al., "Bayesian Data Analysis", 3rd
edition, section 5.5, with the priors of posteriordb's eight_schools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from sweepvi.guides.guide import Program
from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.problem import Model, Problem

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
STANDARD_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


@dataclass(frozen=True)
class EightSchools(Model):
    """Eight schools: a treatment effect a school, partially pooled."""

    centered: Annotated[bool, Key("sample school effects directly, not as standard normals scaled")] = False

    def problem(self, load: Load) -> Problem:
        """The model with Rubin's eight estimates and standard errors."""
        del load
        model: Program = centered if self.centered else noncentered
        return Problem(model, kwargs={"effect": torch.tensor(EFFECTS), "standard_error": torch.tensor(STANDARD_ERRORS)})


def noncentered(effect: Tensor, standard_error: Tensor) -> None:
    """School effects as scaled standard normals; ``effect`` and ``standard_error`` are of shape [8]."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effect)):
        standardized = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * standardized)
        pyro.sample("y", dist.Normal(theta, standard_error), obs=effect)


def centered(effect: Tensor, standard_error: Tensor) -> None:
    """School effects sampled directly; ``effect`` and ``standard_error`` are of shape [8]."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(effect)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, standard_error), obs=effect)
