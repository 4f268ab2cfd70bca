"""Trials as lanes of one cohort, that come and go."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from lane_parity import DEVICE, as_lanes, recipe
from pyro.infer.autoguide import AutoNormal

from sweepvi.engine.lanes.lane_trials import LaneTrials
from sweepvi.engine.trials import Ended, Task

STEPS = 40


class Program:
    """A model that takes note of what is the default around it."""

    def __init__(self):
        self.around = set()

    def __call__(self, y):
        self.around.add((torch.get_default_dtype(), torch.get_default_device().type))
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
        pyro.sample("y", dist.Normal(mu, torch.tensor(1.0)).expand([3]).to_event(1), obs=y)


def fits(program, *optimizers, **engine):
    y = torch.tensor([0.5, 1.0, -0.2])
    engine = {"steps": STEPS, "score_draws": 50, **engine}
    return [recipe(program, (y,), guide=AutoNormal, optimizer=each, engine=engine) for each in optimizers]


def ended(trials, *waiting):
    """Run all to their end; those that wait come one by one, after a look at the others."""
    waiting, found = list(waiting), {}
    while trials.running or waiting:
        if waiting and trials.free:
            trials.enter([waiting.pop(0)])
        found |= {event.key: event for event in trials.advance() if isinstance(event, Ended)}
    trials.close()
    return found


def test_an_optimizer_that_nobody_knew_of_is_traced_as_the_others_were():
    program, optimizers = Program(), ({"name": "clipped_adam", "lr": 0.05}, {"name": "sgd", "lr": 0.01})
    recipes = fits(program, *optimizers)
    first, second = (Task(key, each) for key, each in enumerate(recipes))
    found = ended(LaneTrials([first], 2, 2 * STEPS), first, second)
    assert {event.status for event in found.values()} == {"finished"}
    assert program.around == {(torch.float64, DEVICE)}
    for key, each in enumerate(fits(program, *optimizers)):
        [outcome] = as_lanes([each])
        torch.testing.assert_close(found[key].losses, outcome.losses, rtol=1e-10, atol=1e-10)


def test_why_a_trial_has_diverged_is_found_out_under_its_own_settings():
    program = Program()
    [diverging] = fits(program, {"name": "sgd", "lr": 1e160})
    task = Task(0, diverging)
    found = ended(LaneTrials([task], 1, STEPS), task)
    assert found[0].status == "diverged"
    assert "non-finite" in found[0].message
    assert program.around == {(torch.float64, DEVICE)}
