"""Sticking the landing: Roeder, Wu & Duvenaud, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
Variational Inference", 2017, equation 8.

With z = z(ε, φ), the gradient of log p(x, z) − log q(z; φ) has two parts: along the path through z, and the score
∂ log q(z; φ) / ∂φ at fixed z. The score has mean zero and is left out. What remains vanishes, draw by draw, where q is
the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pyro.distributions.score_parts import ScoreParts
from pyro.infer.trace_elbo import Trace_ELBO

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches, path_only


@dataclass(frozen=True)
class STL(ParticleEstimator):
    """Sticking the landing: the path derivative only, whose noise vanishes as the guide nears the posterior."""

    averages_particles: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False

    def build(self) -> Elbo:
        """A new ELBO object; draws that cannot be differentiated are treated as by ``trace``."""
        return _STL(**self.options())


class _STL(Trace_ELBO):
    """Takes the entropy from a second run of the guide, with its parameters held fixed."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with SameMinibatches():
            traces: Any = super()._get_trace(model, guide, args, kwargs)
            model_trace, guide_trace = traces
            fixed = path_only(guide, guide_trace, args, kwargs)
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and getattr(site["fn"], "has_rsample", False):
                log_prob, score, _ = site["score_parts"]
                site["score_parts"] = ScoreParts(log_prob, score, fixed.nodes[name]["score_parts"].entropy_term)
        return model_trace, guide_trace
