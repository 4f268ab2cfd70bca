"""Pyro as its tutorials have it: an autoguide, ``ClippedAdam`` with a step size of 1e-3, 10,000 steps, one draw."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pyro
import torch
from fitted import DRAWS, Fitted
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal
from pyro.infer.importance import vectorized_importance_weights
from pyro.optim import ClippedAdam  # pyright: ignore[reportPrivateImportUsage]

from sweepvi.diagnostics import pareto_k
from sweepvi.guides.initial import init_loc
from sweepvi.problem import Problem

STEPS = 10_000


def full_rank(problem: Problem, seed: int) -> Fitted:
    """Fit a problem by ``AutoMultivariateNormal``."""
    return fit(problem, seed, family=AutoMultivariateNormal)


def fit(problem: Problem, seed: int, steps: int = STEPS, family: Callable[..., AutoGuide] = AutoNormal) -> Fitted:
    """Fit a problem whose data is in double precision."""
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    # Pyro's default, which alone would fail where a prior is flat: it asks for a draw.
    guide = family(problem.model, init_loc_fn=init_loc("feasible"))
    svi = SVI(problem.model, guide, ClippedAdam({"lr": 1e-3}), Trace_ELBO())
    begun = time.perf_counter()
    for _ in range(steps):
        svi.step(**problem.kwargs)
    seconds = time.perf_counter() - begun
    with torch.no_grad():
        weights, trace, _ = vectorized_importance_weights(
            problem.model, guide, num_samples=DRAWS, max_plate_nesting=1, normalized=False, **problem.kwargs
        )
    nodes: dict[str, Any] = dict(trace.nodes)
    latent = {
        name: site["value"]
        for name, site in nodes.items()
        if site["type"] == "sample" and (not site["is_observed"] or site["infer"].get("_deterministic"))
    }
    # A site outside of plates has a dimension of length one where they would be.
    draws = {name: value.squeeze(1) for name, value in latent.items()}
    return Fitted(draws, pareto_k(torch.as_tensor(weights)), seconds, steps)
