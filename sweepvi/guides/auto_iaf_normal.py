"""Pyro's ``AutoIAFNormal``: a normal pushed through inverse autoregressive flows.

Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling, "Improved Variational Inference with Inverse Autoregressive
Flow", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pyro.infer import autoguide

from sweepvi.guides.guide import Guide, Program
from sweepvi.keys import Key


@dataclass(frozen=True)
class AutoIAFNormal(Guide):
    """A normal through inverse autoregressive flows: skew and curved posteriors."""

    flow: ClassVar[bool] = True

    num_transforms: Annotated[int, Key("flows in a row", ge=1)] = 1
    hidden_dim: Annotated[int | None, Key("width of the networks; null takes ten a latent scalar", ge=1)] = None

    def build(self, model: Program) -> Program:
        """A new ``pyro.infer.autoguide.AutoIAFNormal``."""
        return autoguide.AutoIAFNormal(
            model,
            hidden_dim=None if self.hidden_dim is None else [self.hidden_dim],
            num_transforms=self.num_transforms,
        )

    def standardized(self) -> Guide:
        """See :meth:`Guide.standardized`: its networks start near the identity."""
        return self
