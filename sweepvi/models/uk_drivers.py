"""UK drivers killed or seriously injured, month by month: what did the seat-belt law of 1983 change?

Harvey & Durbin, "The Effects of Seat Belt Legislation on British Road Casualties", 1986; Commandeur & Koopman, "An
Introduction to State Space Time Series Analysis", 2007, chapter 7. The level is stochastic and the season fixed, in the
trigonometric form, which sums to zero over a year.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.models.random_walk import CumulativeSum, moves
from sweepvi.problem import Model, Problem


@dataclass(frozen=True)
class UKDrivers(Model):
    """UK drivers killed or seriously injured in 192 months: a wandering level, the season, petrol, seat belts."""

    centered: Annotated[bool, Key("sample the level directly, not its steps as standard normals")] = False

    def problem(self, load: Load) -> Problem:
        """The model with the series of ``data/uk_drivers.csv``."""
        del load
        log_drivers, log_petrol, seat_belt = _read()
        kwargs = {"log_drivers": log_drivers, "log_petrol": log_petrol, "seat_belt": seat_belt}
        return Problem(model, kwargs={**kwargs, "centered": self.centered})


def _read() -> tuple[Tensor, Tensor, Tensor]:
    """Log drivers, log price of petrol and whether there is the law, each of shape [192]."""
    text = (files("sweepvi") / "models" / "data" / "uk_drivers.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    drivers, petrol, belt = (
        torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
        for name in ("log_drivers", "log_petrol", "seat_belt")
    )
    return drivers, petrol, belt


START, START_SD = 7.0, 1.0
"""The prior of the first month's level: about 1,100 drivers, give or take a factor of e."""


def harmonics(months: int, like: Tensor) -> Tensor:
    """Orthonormal cosines and sines of period 12, 6, 4, 3, 2.4 and 2 months: shape [months, 11], from January."""
    angle = torch.arange(months, dtype=like.dtype, device=like.device).unsqueeze(-1) * (math.pi / 6)
    waves = torch.arange(1, 7, dtype=like.dtype, device=like.device)
    cosines, sines = torch.cos(angle * waves), torch.sin(angle * waves[:-1])
    return torch.cat([cosines[:, :-1], sines, cosines[:, -1:] / math.sqrt(2)], dim=-1) / math.sqrt(6)


def model(log_drivers: Tensor, log_petrol: Tensor, seat_belt: Tensor, centered: bool = False) -> None:
    """A month's log drivers are normal around level, season, and effects of petrol and the law.

    Args:
        log_drivers: log count, shape [months], from a January.
        log_petrol: log price, shape [months].
        seat_belt: 1 under the law, shape [months].
        centered: sample the level directly.

    """
    months = len(log_drivers)
    petrol = pyro.sample("petrol", dist.Normal(0.0, 1.0))
    law = pyro.sample("law", dist.Normal(0.0, 1.0))
    sigma_level = pyro.sample("sigma_level", dist.HalfNormal(0.1))
    sigma = pyro.sample("sigma", dist.HalfNormal(0.2))
    waves = pyro.sample("waves", dist.Normal(log_drivers.new_zeros(11), 0.5).to_event(1))
    walk = moves(START, START_SD, sigma_level, months)
    if centered:
        level = pyro.sample("level", dist.TransformedDistribution(walk, [CumulativeSum()]))
    else:
        standardized = pyro.sample("level_trans", dist.Normal(log_drivers.new_zeros(months), 1.0).to_event(1))
        level = pyro.deterministic("level", (walk.mean + walk.stddev * standardized).cumsum(-1), event_dim=1)
    season = pyro.deterministic("season", waves @ harmonics(12, log_drivers).T, event_dim=1)
    effects = petrol.unsqueeze(-1) * (log_petrol - log_petrol.mean()) + law.unsqueeze(-1) * seat_belt
    month = torch.arange(months, device=log_drivers.device) % 12
    # No plate: nothing of the level's is independent of its neighbours, and time is one event.
    center = level + season[..., month] + effects
    pyro.sample("log_drivers", dist.Normal(center, sigma.unsqueeze(-1)).to_event(1), obs=log_drivers)
