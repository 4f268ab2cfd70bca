"""Pyro's ``Trace_ELBO``.

Reparameterised gradients where the guide allows them, the score-function estimator elsewhere: Ranganath, Gerrish &
Blei, "Black Box Variational Inference", 2014, and Wingate & Weber, "Automated Variational Inference in Probabilistic
Programming", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pyro.infer.trace_elbo import Trace_ELBO

from sweepvi.estimators.estimator import Elbo, ParticleEstimator


@dataclass(frozen=True)
class Trace(ParticleEstimator):
    """Trace_ELBO: reparameterised gradients where possible, the score function elsewhere."""

    averages_particles: ClassVar[bool] = True

    def build(self) -> Elbo:
        """A new ``Trace_ELBO``."""
        return Trace_ELBO(**self.options())
