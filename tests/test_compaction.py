"""Lanes that still run go on in a smaller cohort: the same fits, less work, and the same bits after a resumption."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.engine.lanes import compaction, lane_fits
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.compaction import planned
from sweepvi.engine.lanes.lane_fits import LADDER
from sweepvi.engine.observer import Observer

ENGINE = {"name": "lanes", "dtype": "float64", "restarts": 1, "score_draws": 20, "posterior_draws": 0}


def steep(scale):
    """Infinitely unlikely beyond ``scale``: sooner or later, a draw falls there."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("cliff", torch.where(x.abs() < scale, 0.0, math.nan) * x)


STEEP = {
    "guide": {"name": "auto_normal", "init_scale": 1.0},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "engine": {**ENGINE, "restarts": 16, "score_draws": 0, "checkpoint_every": 40},
}


class TestPlan:
    def test_nothing_is_done_while_it_would_not_pay(self):
        assert planned(64, [100] * 10, LADDER, 1.0, 48 * 100) == 64
        assert planned(64, [100] * 10, LADDER, 1.0, 48 * 100 - 1) == 16

    def test_it_waits_for_those_who_end_soon(self):
        left = [1000, *[10] * 9]
        assert planned(64, left, LADDER, 1.0, 1000.0) == 64
        assert planned(64, left, LADDER, 1.0, 100.0) == 16
        assert planned(64, [1000, *[500] * 9], LADDER, 1.0, 1000.0) == 16

    def test_no_lane_is_dropped(self):
        for running in range(1, 65):
            size = planned(64, [50] * running, LADDER, 1.0, 0.0)
            assert size == next(rung for rung in LADDER if rung >= running)

    def test_following_it_costs_what_was_planned(self):
        """Step by step, the decision stays the best: no change of mind, and none comes late."""
        left, size, changes = [300, 300, 120, 80, 40, 40, 40, 2], 8, []
        for now in range(300):
            running = [steps - now for steps in left if steps > now]
            found = planned(size, running, LADDER, 1.0, 150.0)
            if found != size:
                changes.append((now, found))
                size = found
        assert changes == [(40, 4), (120, 2)]


@pytest.fixture
def at_no_cost(monkeypatch):
    """A change of size pays at once; the sizes that were chosen."""
    sizes = []

    def noted(cohort, lanes, size):
        sizes.append(size)
        return compaction.moved(cohort, lanes, size)

    monkeypatch.setattr(compaction, "TRACING", {"cpu": 0})
    monkeypatch.setattr(lane_fits, "moved", noted)
    return sizes


def same(one, other):
    assert (one.status, one.steps, one.message, one.skipped) == (
        other.status,
        other.steps,
        other.message,
        other.skipped,
    )
    close = {"rtol": 1e-10, "atol": 1e-10, "equal_nan": True}
    torch.testing.assert_close(one.losses, other.losses, **close)
    torch.testing.assert_close(one.rates, other.rates, **close)
    torch.testing.assert_close(one.params, other.params, **close)
    assert (one.elbo or 0.0) == pytest.approx(other.elbo or 0.0, rel=1e-9)
    assert one.r_hat == pytest.approx(other.r_hat, rel=1e-8)


def test_fits_of_very_different_lengths_are_what_they_were(at_no_cost, monkeypatch):
    """Also their optimizers of several forms, schedules that follow the loss, averages, and means over iterates."""
    plateau = {"name": "plateau", "patience": 3, "gamma": 0.7}
    settings = [
        {"steps": 20, "optimizer": {"name": "adam", "lr": 0.1}},
        {"steps": 400, "seed": 1, "scheduler": plateau},
        {"steps": 30, "seed": 2},
        {"steps": 260, "seed": 3, "optimizer": "schedule_free_adam"},
        {"steps": 90, "seed": 4, "partition": "loc_scale", "scheduler": "cosine"},
    ]
    how = {"settings": settings, "engine": {**ENGINE, "restarts": 2}}
    found = sweepvi.fit_many("eight_schools", **how)
    assert at_no_cost == [8, 4, 2]
    monkeypatch.setattr(compaction, "TRACING", {"cpu": 1 << 60})
    for one, other in zip(found, sweepvi.fit_many("eight_schools", **how), strict=True):
        same(one, other)
        assert one.r_hat
        assert [each["elbo"] for each in one.restarts] == pytest.approx([each["elbo"] for each in other.restarts])
    assert at_no_cost == [8, 4, 2]


def test_steps_left_out_are_remembered(at_no_cost, monkeypatch):
    how = {
        **STEEP,
        "settings": [{"steps": 40}, {"steps": 300}],
        "engine": {**ENGINE, "score_draws": 0, "on_nonfinite": "skip"},
    }
    found = sweepvi.fit_many(steep, (2.0,), **how)
    assert at_no_cost == [1]
    monkeypatch.setattr(compaction, "TRACING", {"cpu": 1 << 60})
    for one, other in zip(found, sweepvi.fit_many(steep, (2.0,), **how), strict=True):
        same(one, other)
    assert {step > 64 for step in found[1].skipped} == {True, False}


def test_lanes_that_have_diverged_are_dropped(at_no_cost, monkeypatch):
    found = sweepvi.fit(steep, (2.8,), steps=200, **STEEP)
    statuses = [each["status"] for each in found.restarts]
    assert {"diverged", "finished"} == set(statuses)
    assert at_no_cost[-1] == next(rung for rung in LADDER if rung >= statuses.count("finished"))
    monkeypatch.setattr(compaction, "TRACING", {"cpu": 1 << 60})
    other = sweepvi.fit(steep, (2.8,), steps=200, **STEEP)
    same(found, other)
    for one, two in zip(found.restarts, other.restarts, strict=True):
        assert (one["seed"], one["status"], one["message"]) == (two["seed"], two["status"], two["message"])


class Stops(Observer):
    """A second Ctrl-C, once some steps are taken."""

    def __init__(self, after):
        self.after = after

    def stepped(self, step, loss):
        del loss
        if step >= self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [30, 90, 150])
def test_a_resumed_fit_is_the_same_to_the_last_bit(at_no_cost, tmp_path, after):
    """Interrupted before, between and after changes of size; what has been dropped then is told all the same."""
    how = {**STEEP, "engine": {**STEEP["engine"], "dtype": "float32"}}
    whole = sweepvi.fit(steep, (2.8,), steps=200, **how)
    sizes = list(at_no_cost)
    with pytest.raises(KeyboardInterrupt):
        sweepvi.fit(steep, (2.8,), steps=200, folder=tmp_path, progress=Stops(after), **how)
    again = sweepvi.fit(steep, (2.8,), steps=200, folder=tmp_path, resume=True, **how)
    assert at_no_cost == [*sizes, *sizes]
    assert torch.equal(again.losses, whole.losses)
    assert all(torch.equal(again.params[name], value) for name, value in whole.params.items())
    assert again.restarts == whole.restarts
    assert again.r_hat == whole.r_hat


def test_a_resumed_fit_has_as_many_lanes(tmp_path, monkeypatch):
    """Where dropping the lanes that have diverged does not pay, though fewer would do."""
    sizes = []

    def noted(captured, entrants, lanes, *more, **named):
        sizes.append(lanes)
        return Cohort(captured, entrants, lanes, *more, **named)

    monkeypatch.setattr(lane_fits, "Cohort", noted)
    with pytest.raises(KeyboardInterrupt):
        sweepvi.fit(steep, (2.8,), steps=200, folder=tmp_path, progress=Stops(190), **STEEP)
    sweepvi.fit(steep, (2.8,), steps=200, folder=tmp_path, resume=True, **STEEP)
    assert set(sizes) == {16}


def test_restarts_that_wait_resume(tmp_path, monkeypatch):
    """Five in four lanes: those that are over, those in lanes, and one that has not begun."""
    monkeypatch.setattr(lane_fits, "most_lanes", lambda found, settings: 5)
    how = {"engine": {**ENGINE, "restarts": 5, "checkpoint_every": 0}}
    whole = sweepvi.fit("eight_schools", steps=100, **how)
    for after in (64, 100, 164):
        folder = tmp_path / str(after)
        with pytest.raises(KeyboardInterrupt):
            sweepvi.fit("eight_schools", steps=100, folder=folder, progress=Stops(after), **how)
        again = sweepvi.fit("eight_schools", steps=100, folder=folder, resume=True, **how)
        assert torch.equal(again.losses, whole.losses)
        assert again.restarts == whole.restarts
        assert again.r_hat == whole.r_hat
        longer = sweepvi.fit("eight_schools", steps=120, folder=folder, resume=True, **how)
        assert [each["status"] for each in longer.restarts] == ["finished"] * 5
        assert longer.steps == 120


def test_one_of_many_fits_goes_on_alone(tmp_path):
    """Whatever optimizers its neighbours had."""
    settings = [{"optimizer": name, "steps": 50} for name in ("adam", "clipped_adam", "schedule_free_adam")]
    found = sweepvi.fit_many("eight_schools", settings=settings, engine=ENGINE)
    for one, own in zip(found, settings, strict=True):
        folder = tmp_path / own["optimizer"]
        one.save(folder)
        longer = {"optimizer": own["optimizer"], "steps": 80, "engine": ENGINE}
        resumed = sweepvi.fit("eight_schools", folder=folder, resume=True, **longer)
        same(resumed, sweepvi.fit("eight_schools", **longer))
