"""``sweep=auto``: which presets are raced for which model."""

from __future__ import annotations

import pytest

from sweepvi import preflight
from sweepvi.command import parse
from sweepvi.engine import Facts
from sweepvi.errors import ConfigError
from sweepvi.preset import PORTFOLIO, suited

PROGRAM = """
import pyro, pyro.distributions as dist, torch

data = {"x": torch.tensor([-2.0, -1.9, 2.1, 2.3])}

def mixture(x):
    apart = pyro.sample("apart", dist.HalfNormal(2.0))
    with pyro.plate("data", len(x)):
        side = pyro.sample("side", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(apart * (2.0 * side - 1.0), 1.0), obs=x)
"""
MIXTURE = ["model=custom", "model.path=mine.py:mixture", "model.data=mine.py:data"]


def plan(*words):
    return preflight.planned(parse(["-m", "sweep=auto", *words]))[0]


def presets_of(found):
    return [chosen["preset"] for chosen in found._space.structures()]


def test_all_presets_for_a_small_model_from_two_starts():
    found = plan("model=eight_schools")
    assert presets_of(found) == list(PORTFOLIO)
    assert found.grid
    assert 2 * len(presets_of(found)) <= 32
    [flow] = [s for s in map(found._space.structure, found._space.structures()) if "laplace_flow" in str(s.overrides)]
    assert flow.nodes["estimator"] == {**flow.nodes["estimator"], "name": "stl", "num_particles": 64}
    assert [dimension.key for dimension in flow.dimensions] == ["engine.seed"]


def test_discrete_variables_are_summed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PROGRAM)
    for structure in map((found := plan(*MIXTURE))._space.structure, found._space.structures()):
        assert structure.nodes["estimator"]["name"] == "trace_enum"
        assert structure.nodes["estimator"]["num_particles"] == 8


def test_a_model_with_its_own_guide_has_it():
    only = (found := plan("model=digits_vae"))._space.structure({})
    assert "preset=mean_field" in found.overrides
    assert only.nodes["guide"]["name"] == "own"
    assert only.nodes["optimizer"]["name"] == "adam"


def test_what_is_chosen_stays_and_what_is_searched_is_searched():
    found = plan("model=eight_schools", "preset=laplace_normal,mean_field", "optimizer=sgd")
    assert presets_of(found) == ["laplace_normal", "mean_field"]
    assert {s.nodes["optimizer"]["name"] for s in map(found._space.structure, found._space.structures())} == {"sgd"}


@pytest.mark.parametrize("words", [["preset=auto"], ["preset=auto,mean_field"]])
def test_a_preset_that_is_a_ladder_is_for_one_fit(words):
    with pytest.raises(ConfigError, match="preset = 'auto': tries one fit after another"):
        plan("model=eight_schools", *words)


@pytest.mark.parametrize(("size", "why", "count"), [(200, "", 6), (201, "", 2), (1001, "", 1), (5, "parameters", 1)])
def test_presets_that_cost_too_much_are_left_out(size, why, count):
    assert len(suited(Facts(size, (), why, False))) == count
