"""Lanes beside the eager engine on the same noise."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from sweepvi.api import recipe_from
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes import captured as capturing
from sweepvi.engine.lanes.captured import NotCapturedError, captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.engine.lanes.lane_run import lane_fits
from sweepvi.engine.lanes.minibatches import GivenMinibatches, filled
from sweepvi.engine.lanes.noise_modes import noise_of_steps
from sweepvi.engine.lanes.randomness import Given
from sweepvi.engine.trial_run import start
from sweepvi.private import transformable
from sweepvi.programs import reachable_modules

DEVICE = os.environ.get("SWEEPVI_TEST_DEVICE", "cpu")
"""Where the contract is tested."""

ENGINE = {
    "name": "lanes",
    "device": DEVICE,
    "dtype": "float64",
    "restarts": 1,
    "score_draws": 50,
    "posterior_draws": 0,
}


def recipe(model="eight_schools", args=(), **changes):
    parts = {
        "guide": "auto_normal",
        "estimator": "trace",
        "optimizer": "clipped_adam",
        "scheduler": "constant",
        "partition": "single",
    }
    engine = {**ENGINE, "score_draws": 0, "posterior_draws": 0, **changes.pop("engine", {})}
    return recipe_from(model, args, **{**parts, **changes}, engine=engine)


def eagerly(made, steps, nudge=0.0):
    """Losses, and parameters at the end, of the eager engine that is fed the noise of lanes.

    With ``nudge``, parameters start that much, relatively, beside where they would.
    """
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        engine = EagerEngine(made, isolation)
        draws = captured(engine).draws
        engine.move_to({name: param * (1 + nudge) for name, param in engine.optimization.live.items()})
        seeds, losses = torch.tensor([made.settings.seed], device=DEVICE), []
        for step in range(steps):
            at = torch.tensor([step], device=DEVICE)
            noise = {
                sort: rows[0, 0] for sort, rows in noise_of_steps(draws.noise, made.settings.noise, seeds, at).items()
            }
            rows = [choice[0] for choice in filled(draws.minibatches, made.settings.data_seed, at)]
            with transformable(), GivenMinibatches(rows), Given(draws.noise.of_lane(noise), in_place=True):
                losses.append(engine.step())
        return torch.tensor(losses, dtype=torch.float64, device="cpu"), Start.of(engine).params


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
        torch.testing.assert_close(state[name].cpu(), value.cpu(), rtol=tolerance, atol=tolerance)


@dataclass(frozen=True)
class Capture:
    """What becomes of a fit under lanes."""

    outcome: str
    """``"captured"``, or why not."""
    worst: float
    """The largest relative error of two lanes' losses and gradients beside Pyro's own, in the units of each."""


def capture(made, monkeypatch, traced=False):
    """Capture a fit, beside Pyro's ``loss_and_grads`` on the same noise; ``ConfigError`` if it is no fit at all."""
    errors, demand_close = [0.0], capturing.demand_close

    def note(what, ours, theirs, *terms):
        theirs = theirs.to(ours)
        size = float(theirs.abs().max()) if theirs.numel() else 0.0
        assert (size == 0) or math.isfinite(size), what
        errors.append(float((ours - theirs).abs().max()) / (size or 1.0) if theirs.numel() else 0.0)
        demand_close(what, ours, theirs, *terms)

    with environment(made.settings, reachable_modules(made.reach())) as isolation, monkeypatch.context() as patched:
        engine = start(made, isolation)
        patched.setattr(capturing, "demand_close", note)
        try:
            found = captured(engine)
            if traced:
                entrant = Entrant.of(made, Start.of(engine), engine.optimization, found)
                capturing.capturing(Cohort(found, [entrant], 1, made.settings, 1).trace)
        except NotCapturedError as error:
            return Capture(str(error), max(errors))
        return Capture("captured", max(errors))


def agree_with(outcome, other, tolerance):
    """Two lanes' losses and parameters."""
    agree(outcome, other.losses, other.snapshot.get("param")[0], tolerance)
