"""Pyro's ``AutoDiagonalNormal``: independent normals over all latent variables as one vector."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer import autoguide

from sweepvi.guides.guide import Program, ScaledAutoGuide


@dataclass(frozen=True)
class AutoDiagonalNormal(ScaledAutoGuide):
    """Independent normals, over one flattened vector."""

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoDiagonalNormal``."""
        return autoguide.AutoDiagonalNormal(model, init_loc_fn=self.init_loc_fn(), init_scale=self.start_scale)
