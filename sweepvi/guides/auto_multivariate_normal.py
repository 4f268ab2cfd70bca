"""Pyro's ``AutoMultivariateNormal``: a normal with full covariance, by its Cholesky factor."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer import autoguide

from sweepvi.guides.guide import Program, ScaledAutoGuide


@dataclass(frozen=True)
class AutoMultivariateNormal(ScaledAutoGuide):
    """A normal with full covariance: D(D+3)/2 parameters for D latent scalars."""

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoMultivariateNormal``."""
        return autoguide.AutoMultivariateNormal(model, init_loc_fn=self.init_loc_fn(), init_scale=self.start_scale)
