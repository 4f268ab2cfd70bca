"""What can be known of a model without fitting it: the facts by which settings are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sweepvi.engine.environment import device_of, dtype_of, environment
from sweepvi.engine.log_joint import started_trace
from sweepvi.errors import ConfigError, Problem, listed
from sweepvi.estimators.sites import is_countable, is_latent
from sweepvi.geometry import Coordinates, NoGeometryError
from sweepvi.guides.own import brought
from sweepvi.loading import described
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """Of a model on its data."""

    size: int
    """Unconstrained scalars of its continuous latent variables."""
    summed: tuple[str, ...]
    """Discrete latent variables, which can be summed over."""
    why_no_geometry: str
    """Why its latent variables cannot be one vector, or depend on what a fit changes; empty if they can."""
    brings_guide: bool
    """Whether it has a guide of its own."""


def facts_of(recipe: Recipe) -> Facts:
    """The facts of a recipe's model, in one run; ``ConfigError`` if it does not run on its data."""
    settings = recipe.settings
    with environment(settings, reachable_modules(recipe.reach())):
        problem = recipe.problem.to(dtype_of(settings), device_of(settings))
        try:
            with torch.no_grad():
                trace = started_trace(problem, "median")
        except (Exception, SystemExit) as error:
            raise ConfigError([Problem("model", f"does not run on its data: {described(error)}")]) from error
        return _facts(trace, recipe)


def _facts(trace: Any, recipe: Recipe) -> Facts:
    nodes = trace.nodes.items()
    summed = [name for name, site in nodes if is_latent(site) and is_countable(site)]
    own = [name for name, site in nodes if site["type"] == "param"]
    for name in summed:
        trace.nodes[name]["infer"] = {**trace.nodes[name]["infer"], "enumerate": "parallel"}
    size, why = 0, f"the model has parameters of its own: {listed(own[:3])}" if own else ""
    try:
        size = Coordinates.of(trace).size
    except NoGeometryError as error:
        why = why or str(error)
        size = sum(site["value"].numel() for name, site in nodes if is_latent(site) and name not in summed)
    return Facts(size, tuple(summed), why, brought(recipe.problem.model) is not None)
