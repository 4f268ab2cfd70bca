"""Programs beyond the shipped models: captured with Pyro's gradients, and then the eager fit; or refused, and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lane_parity import agree, as_lanes, capture, eagerly, recipe
from lane_programs import PROGRAMS

from sweepvi.engine.lanes.captured import NotCapturedError

STEPS = 12


def made(program, dtype):
    engine = {"steps": STEPS, "seed": 3, "dtype": dtype}
    return recipe(program.model, program.args, guide=program.guide, estimator=program.estimator, engine=engine)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_pyros_or_the_reason_is_as_written(name, monkeypatch):
    for dtype, tolerance in (("float64", 1e-11), ("float32", 1e-5)):
        found = capture(made(PROGRAMS[name], dtype), monkeypatch)
        assert re.fullmatch(PROGRAMS[name].outcome, found.outcome)
        assert found.worst <= tolerance


LONG_TO_TRACE = {
    "score_function",
    "vimco",
    "rloo_looped",
    "iwae_looped",
    "mixture_particles",
    "mixture_minibatches",
    "enumerated_in_guide",
    "enumerated_one_by_one",
    "scale_mask_lkj",
    "structured",
    "tmc_sums",
    "normal_messenger",
}
"""Others have their steps, too."""


def marked(name):
    return pytest.param(name, marks=[pytest.mark.long] if name in LONG_TO_TRACE else [])


@pytest.mark.parametrize("name", [marked(name) for name in PROGRAMS])
def test_a_lane_is_the_eager_fit(name):
    one = made(PROGRAMS[name], "float64")
    if PROGRAMS[name].outcome == "captured":
        [outcome] = as_lanes([one])
        agree(outcome, *eagerly(one, STEPS), 1e-10)
        return
    with pytest.raises(NotCapturedError, match=PROGRAMS[name].outcome):
        as_lanes([one])


def test_the_page_says_what_becomes_of_each():
    page = (Path(__file__).parents[1] / "docs" / "lanes.md").read_text(encoding="utf-8")
    table = page.partition("| with | as lanes | tested as |")[2].partition("\n\n")[0]
    written = {}
    for answer, cell in re.findall(r"\| (yes|no) \| ([^|]*) \|$", table, re.MULTILINE):
        written |= dict.fromkeys(re.findall(r"`(\w+)`", cell), answer)
    assert written == {name: "yes" if each.outcome == "captured" else "no" for name, each in PROGRAMS.items()}
