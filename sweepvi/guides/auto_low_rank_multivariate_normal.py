"""Pyro's ``AutoLowRankMultivariateNormal``: a normal with covariance of diagonal plus low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pyro.infer import autoguide

from sweepvi.guides.guide import Program, ScaledAutoGuide
from sweepvi.keys import Key


@dataclass(frozen=True)
class AutoLowRankMultivariateNormal(ScaledAutoGuide):
    """A normal with covariance of diagonal plus low rank."""

    rank: Annotated[int | None, Key("rank; null takes the root of the number of latent scalars", ge=1)] = None

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoLowRankMultivariateNormal``."""
        return autoguide.AutoLowRankMultivariateNormal(
            model, init_loc_fn=self.init_loc_fn(), init_scale=self.start_scale, rank=self.rank
        )
