"""Programs beyond the shipped models: captured with Pyro's gradients, and then the eager fit; or refused, and why."""

from __future__ import annotations

import re

import pytest
from lane_parity import agree, as_lanes, capture, eagerly, recipe
from lane_programs import PROGRAMS

from sweepvi.engine.lanes.captured import NotCapturedError

STEPS = 12


def made(program, dtype):
    engine = {"steps": STEPS, "seed": 3, "dtype": dtype}
    changes = {"guide": program.guide, "estimator": program.estimator, **program.changes}
    return recipe(program.model, program.args, engine=engine, **changes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_pyros_or_the_reason_is_as_written(name, monkeypatch):
    for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-5)):
        found = capture(made(PROGRAMS[name], dtype), monkeypatch)
        assert re.fullmatch(PROGRAMS[name].outcome, found.outcome)
        assert found.worst <= tolerance


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_lane_is_the_eager_fit(name):
    one = made(PROGRAMS[name], "float64")
    if PROGRAMS[name].outcome == "captured":
        [outcome] = as_lanes([one])
        agree(outcome, *eagerly(one, STEPS), 1e-10)
        return
    with pytest.raises(NotCapturedError, match=PROGRAMS[name].outcome):
        as_lanes([one])
