"""Gradient estimators of the evidence lower bound (ELBO), one file each."""

from sweepvi.estimators.estimator import Estimator, ParticleEstimator
from sweepvi.estimators.trace import Trace
from sweepvi.estimators.trace_graph import TraceGraph

__all__ = ["Estimator", "ParticleEstimator", "Trace", "TraceGraph"]
