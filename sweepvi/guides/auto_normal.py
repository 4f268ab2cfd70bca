"""Pyro's ``AutoNormal``: an independent normal for every latent variable, site by site."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer import autoguide

from sweepvi.guides.guide import Program, ScaledAutoGuide


@dataclass(frozen=True)
class AutoNormal(ScaledAutoGuide):
    """Independent normals, one a latent variable."""

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoNormal``."""
        return autoguide.AutoNormal(model, init_loc_fn=self.init_loc_fn(), init_scale=self.start_scale)
