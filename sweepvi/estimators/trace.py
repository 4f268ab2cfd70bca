"""Pyro's ``Trace_ELBO``.

Reparameterised gradients where the guide allows them, the score-function estimator elsewhere: Ranganath, Gerrish &
Blei, "Black Box Variational Inference", 2014, and Wingate & Weber, "Automated Variational Inference in Probabilistic
Programming", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyro.infer.trace_elbo import Trace_ELBO

from sweepvi.estimators.estimator import Elbo, Estimator


@dataclass(frozen=True)
class Trace(Estimator):
    """Trace_ELBO: reparameterised gradients where possible, the score function elsewhere."""

    def build(self) -> Elbo:
        """A new ``Trace_ELBO``."""
        return Trace_ELBO(num_particles=self.num_particles, vectorize_particles=self.vectorize_particles)
