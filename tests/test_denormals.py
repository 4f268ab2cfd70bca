"""What is too small for its type is 0 while lanes take their steps, and nowhere else."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.engine.lanes import stepping
from sweepvi.engine.lanes.denormals import denormals_are_zero

SMALL = torch.tensor([1e-40, 1e-30])


def is_zero():
    return float((SMALL * 0.5)[0]) == 0.0


def test_inside_and_nowhere_else():
    assert not is_zero()
    with denormals_are_zero():
        assert is_zero()
        assert float((SMALL * 0.5)[1]) == pytest.approx(5e-31)
    assert not is_zero()
    with pytest.raises(KeyError), denormals_are_zero():
        raise KeyError
    assert not is_zero()


def test_what_was_so_before_stays_so():
    torch.set_flush_denormal(True)
    try:
        with denormals_are_zero():
            assert is_zero()
        assert is_zero()
    finally:
        torch.set_flush_denormal(False)


def test_several_threads_would_not_agree():
    torch.set_num_threads(2)
    try:
        with denormals_are_zero():
            assert not is_zero()
    finally:
        torch.set_num_threads(1)


def test_lanes_take_their_steps_so(monkeypatch):
    found = []
    before = stepping.Stepping._stepped

    def noted(self, *given):
        found.append(is_zero())
        return before(self, *given)

    monkeypatch.setattr(stepping.Stepping, "_stepped", noted)
    sweepvi.fit(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), engine="lanes", steps=3, restarts=1, score_draws=5)
    assert found
    assert all(found)
    assert not is_zero()
