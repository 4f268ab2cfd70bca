"""Pyro's ``AutoDelta``: a point, so that the fit is the posterior mode (MAP)."""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer import autoguide

from sweepvi.guides.guide import AutoGuideFamily, Program


@dataclass(frozen=True)
class AutoDelta(AutoGuideFamily):
    """A point mass: maximum a posteriori."""

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoDelta``."""
        return autoguide.AutoDelta(model, init_loc_fn=self.init_loc_fn())

    def note(self) -> str:
        """A point has no entropy."""
        return "auto_delta has no entropy: its elbo is a log density at a point, not comparable with other guides"
