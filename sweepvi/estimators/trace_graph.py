"""Pyro's ``TraceGraph_ELBO``, with a configurable decay of its baselines.

Rao-Blackwellised score-function gradients: Schulman, Heess, Weber & Abbeel, "Gradient Estimation Using Stochastic
Computation Graphs", 2015. Baselines after Mnih & Gregor, "Neural Variational Inference and Learning in Belief
Networks", 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pyro import poutine
from pyro.infer.tracegraph_elbo import TraceGraph_ELBO

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.keys import Key

BASELINE_STATE_PREFIX = "__baseline_avg_downstream_cost_"
"""Pyro keeps a site's decaying average in the parameter store, under this prefix and the site's name."""


@dataclass(frozen=True)
class TraceGraph(ParticleEstimator):
    """TraceGraph_ELBO: score-function gradients with fewer terms, and baselines."""

    reads_baselines: ClassVar = True

    baseline_beta: Annotated[float, Key("decay of sites' average baselines, where a site sets none", ge=0, lt=1)] = 0.9

    def build(self) -> Elbo:
        """A new ``TraceGraph_ELBO`` whose default ``baseline_beta`` is this one's."""
        return _TraceGraph(self.baseline_beta, **self.options())


class _TraceGraph(TraceGraph_ELBO):
    """Pyro's default of 0.90 is a literal inside a private function; a guide's own ``infer`` is where it can be set."""

    def __init__(self, baseline_beta: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.baseline_beta = baseline_beta

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        guide = poutine.infer_config(guide, config_fn=self._with_beta)
        return super().loss_and_grads(model, guide, *args, **kwargs)

    def _with_beta(self, site: Any) -> Any:
        baseline = site["infer"].get("baseline") if site["type"] == "sample" else None
        return {"baseline": {"baseline_beta": self.baseline_beta, **baseline}} if baseline else {}
