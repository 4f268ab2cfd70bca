"""Radon in Minnesota houses: a varying intercept for each of 85 counties.

Gelman & Hill, "Data Analysis Using Regression and Multilevel/Hierarchical Models", 2006, chapter 12. Partial pooling,
with the floor of the measurement as predictor, and the county's uranium if asked.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.problem import Model, Problem


@dataclass(frozen=True)
class Radon(Model):
    """Radon in 919 Minnesota houses: a level a county (85), partially pooled."""

    centered: Annotated[bool, Key("sample county levels directly, not as standard normals scaled")] = False
    uranium: Annotated[bool, Key("let the county's log uranium predict its level")] = False

    def problem(self, load: Load) -> Problem:
        """The model with the measurements of ``data/radon_mn.csv``."""
        del load
        county, floor, log_uranium, log_radon = _read()
        counties = int(county.max()) + 1
        by_county = torch.zeros(counties, dtype=log_uranium.dtype).index_put((county,), log_uranium)
        kwargs = {"county": county, "floor": floor, "log_radon": log_radon, "counties": counties}
        kwargs |= {"log_uranium": by_county if self.uranium else None, "centered": self.centered}
        return Problem(model, kwargs=kwargs)


def _read() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """County from 0, floor, log uranium and log radon, each of shape [919]."""
    text = (files("sweepvi") / "models" / "data" / "radon_mn.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    county, *numbers = ([float(row[name]) for row in rows] for name in ("county", "floor", "log_uppm", "log_radon"))
    floor, log_uranium, log_radon = (torch.tensor(column, dtype=torch.float64) for column in numbers)
    return torch.tensor(county).long() - 1, floor, log_uranium, log_radon


def model(
    county: Tensor,
    floor: Tensor,
    log_radon: Tensor,
    counties: int,
    log_uranium: Tensor | None = None,
    centered: bool = False,
) -> None:
    """Log radon of a house is normal around its county's level plus the effect of the floor.

    Args:
        county: index of each house's county, shape [houses], from 0.
        floor: 0 for the basement, 1 for the ground floor, shape [houses].
        log_radon: log pCi/L, shape [houses].
        counties: number of counties.
        log_uranium: log ppm by county, shape [counties], or None to leave it out.
        centered: sample county levels directly.

    """
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma_county = pyro.sample("sigma_county", dist.HalfNormal(1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    center = mu
    if log_uranium is not None:
        center = mu + pyro.sample("gamma", dist.Normal(0.0, 10.0)) * log_uranium
    with pyro.plate("counties", counties):
        if centered:
            alpha = pyro.sample("alpha", dist.Normal(center, sigma_county))
        else:
            standardized = pyro.sample("alpha_trans", dist.Normal(0.0, 1.0))
            alpha = pyro.deterministic("alpha", center + sigma_county * standardized)
    with pyro.plate("houses", len(log_radon)):
        pyro.sample("log_radon", dist.Normal(alpha[county] + beta * floor, sigma), obs=log_radon)
