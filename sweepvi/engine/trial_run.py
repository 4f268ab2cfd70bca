"""Whether a model runs on its data at all, found out before anything is written."""

from __future__ import annotations

import re
from dataclasses import replace

import pyro
import torch
from pyro import poutine

from sweepvi.distributed import Ranks
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import device_of, dtype_of, environment
from sweepvi.engine.geometry import place_of
from sweepvi.engine.log_joint import started_trace
from sweepvi.engine.numerical import MAYBE_NUMERICAL, is_numerical
from sweepvi.engine.rank_engine import RankEngine
from sweepvi.errors import ConfigError, Problem
from sweepvi.geometry import Place
from sweepvi.loading import described
from sweepvi.programs import Isolation, reachable_modules
from sweepvi.random_state import raw_random_state, set_raw_random_state
from sweepvi.recipe import Recipe


def trial_run(recipe: Recipe) -> None:
    """Run model and guide once, as a fit's first step would.

    Raises ``ConfigError`` with the model's own error in one line: data of the wrong shape or outside a
    distribution's support, plates that do not match, a guide that does not cover the model, nothing to optimize.
    """
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        start(recipe, isolation)


def start(recipe: Recipe, isolation: Isolation, ranks: Ranks | None = None) -> EagerEngine:
    """The engine at step 0, together with other ranks if there are some.

    Where the model's arithmetic fails at the guide's start, and not elsewhere, its first step will fail: a result.

    ``ConfigError`` if the model or its guide does not run, or ranks have different parameters.
    """
    try:
        place = place_of(recipe)
        engine = _engine(recipe, isolation, place, ranks)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        at_fault = "guide" if _model_runs_alone(recipe) else "model"
        raise ConfigError([Problem(at_fault, _said(error))]) from error
    if not engine.optimization.live:
        raise ConfigError([Problem("guide", "model and guide have no parameters; there is nothing to optimize")])
    if isinstance(engine, RankEngine):
        engine.meet()
    return engine


def _engine(recipe: Recipe, isolation: Isolation, place: Place | None, ranks: Ranks | None) -> EagerEngine:
    def made() -> EagerEngine:
        return EagerEngine(recipe, isolation, place) if ranks is None else RankEngine(recipe, isolation, place, ranks)

    before = raw_random_state()
    try:
        return made()
    except MAYBE_NUMERICAL as error:
        if not is_numerical(error) or not _runs_at_its_median(recipe):
            raise
    # Parameters are those of the same start; what is not finite there goes through where nothing is validated.
    pyro.clear_param_store()
    set_raw_random_state(before)
    with pyro.validation_enabled(False):
        return made()


def _runs_at_its_median(recipe: Recipe) -> bool:
    """Whether the model has a finite density on its data somewhere."""
    before = raw_random_state()
    try:
        problem = recipe.problem.to(dtype_of(recipe.settings), device_of(recipe.settings))
        problem = replace(problem, model=recipe.estimator.configured(problem.model))
        with torch.no_grad():
            return bool(torch.isfinite(torch.as_tensor(started_trace(problem, "median").log_prob_sum())))
    except Exception:
        return False
    finally:
        set_raw_random_state(before)


def _said(error: BaseException) -> str:
    discrete = re.search(r"cannot handle discrete sample site '(.*?)'", str(error))
    if discrete:
        name = discrete.group(1)
        return f"autoguides are for continuous variables, {name} is discrete; sum over it with estimator=trace_enum"
    return f"does not run on its data: {described(error)}"


def _model_runs_alone(recipe: Recipe) -> bool:
    """Whether the model runs and its densities can be computed, without the guide."""
    try:
        problem = recipe.problem.to(dtype_of(recipe.settings), device_of(recipe.settings))
        poutine.trace(problem.model).get_trace(*problem.args, **problem.kwargs).log_prob_sum()
    except (Exception, SystemExit):
        return False
    return True
