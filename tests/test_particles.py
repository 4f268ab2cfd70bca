"""Several particles as one program of one: equal to the loop over them, and no larger."""

from __future__ import annotations

import pytest
import torch
from lane_parity import agree, as_lanes, eagerly, recipe
from lane_programs import Y, line, mixture

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.programs import reachable_modules


def made(name, particles, model=line, args=(Y,), **keys):
    estimator = {"name": name, "num_particles": particles, **keys}
    return recipe(model, args, estimator=estimator, engine={"steps": 4, "compile": "never"})


def function(recipe, graph=False):
    """Its captured loss; and the operations of a step, if asked for."""
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        engine = EagerEngine(recipe, isolation)
        found = captured(engine)
        if not graph:
            return found
        cohort = Cohort(
            found, [Entrant.of(recipe, Start.of(engine), engine.optimization, found)], 1, recipe.settings, 1
        )
        cohort.trace()
        return found, cohort.stepping.graph.node_count


ONE_OF_SEVERAL = {
    "trace": ("trace", line),
    "stl": ("stl", line),
    "trace_mean_field": ("trace_mean_field", line),
    "trace_enum": ("trace_enum", mixture),
}


@pytest.mark.parametrize("name", ONE_OF_SEVERAL)
def test_steps_are_those_of_the_loop(name):
    """Losses and parameters of a fit, on the same noise: what is captured is compared with the engine's own."""
    estimator, model = ONE_OF_SEVERAL[name]
    fit = made(estimator, 3, model)
    found = function(fit)
    assert found.of_particle is not None
    assert found.of_particle.noise.draws * 3 == found.draws.noise.draws
    losses, params = eagerly(fit, 4)
    [outcome] = as_lanes([fit])
    agree(outcome, losses, params, 1e-9)


def test_a_step_is_no_longer_with_more_particles():
    (_, one), (found, many) = function(made("stl", 1), graph=True), function(made("stl", 8), graph=True)
    assert found.of_particle is not None
    assert many < 1.2 * one + 20


NOT_ALONE = {
    "one": made("trace", 1),
    "minibatches": made("trace_enum", 2, mixture, (Y, 3)),
    "vectorized": made("stl", 2, vectorize_particles=True),
    "together": made("iwae", 2),
}


@pytest.mark.parametrize("name", NOT_ALONE)
def test_where_particles_are_not_alone_they_are_captured_together(name):
    assert function(NOT_ALONE[name]).of_particle is None
    assert torch.get_default_dtype() is torch.float32
