"""Lanes beside the eager engine on the same noise."""

from __future__ import annotations

import torch

from sweepvi.api import recipe_from
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.entrant import Start
from sweepvi.engine.lanes.lane_fits import lane_fits
from sweepvi.engine.lanes.minibatches import GivenMinibatches, filled
from sweepvi.engine.lanes.noise_modes import noise_of_steps
from sweepvi.engine.lanes.randomness import Given
from sweepvi.private import transformable
from sweepvi.programs import reachable_modules

ENGINE = {"name": "lanes", "dtype": "float64", "restarts": 1, "score_draws": 50}


def recipe(model="eight_schools", args=(), **changes):
    parts = {
        "guide": "auto_normal",
        "estimator": "trace",
        "optimizer": "clipped_adam",
        "scheduler": "constant",
        "partition": "single",
    }
    engine = {**ENGINE, "score_draws": 0, **changes.pop("engine", {})}
    return recipe_from(model, args, **{**parts, **changes}, engine=engine)


def eagerly(made, steps):
    """Losses, and parameters at the end, of the eager engine that is fed the noise of lanes."""
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        engine = EagerEngine(made, isolation)
        draws = captured(engine).draws
        seeds, losses = torch.tensor([made.settings.seed]), []
        for step in range(steps):
            at = torch.tensor([step])
            noise = {
                sort: rows[0, 0] for sort, rows in noise_of_steps(draws.noise, made.settings.noise, seeds, at).items()
            }
            rows = [choice[0] for choice in filled(draws.minibatches, made.settings.data_seed, at)]
            with transformable(), GivenMinibatches(rows), Given(draws.noise.of_lane(noise), in_place=True):
                losses.append(engine.step())
        return torch.tensor(losses, dtype=torch.float64), Start.of(engine).params


def as_lanes(recipes):
    """Outcomes of recipes that run together."""
    with lane_fits(recipes) as fits:
        while fits.running:
            fits.advance(fits.total)
        return fits.outcomes(Interrupt(), lambda done, total: None)


def agree(outcome, losses, params, tolerance):
    torch.testing.assert_close(outcome.losses, losses, rtol=tolerance, atol=tolerance)
    state = outcome.snapshot.get("param")[0]
    for name, value in params.items():
        torch.testing.assert_close(state[name], value, rtol=tolerance, atol=tolerance)
