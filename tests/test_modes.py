"""Modes that a fit has not met: searched for where it would be trusted without, and only there."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.engine import geometry as places
from sweepvi.engine import modes
from sweepvi.geometry.laplace import Laplace

pytestmark = pytest.mark.skipif(find_spec("arviz_stats") is None, reason="k-hat needs arviz-stats, and Python 3.11")

Y = torch.tensor([0.3, -1.2, 0.7, 2.0])
QUICK = {"optimizer": {"name": "adam", "lr": 0.05}, "scheduler": "cosine", "steps": 300, "score_draws": 200}
SHARE = 0.6  # of the mode at -4


def normal(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def two_modes():
    """Normals of the shares SHARE and 1 - SHARE, at -4 and 4 with standard deviation 0.5; its evidence is 1."""
    x = pyro.sample("x", dist.Uniform(-10.0, 10.0))
    at = torch.tensor([-4.0, 4.0], dtype=x.dtype)
    shares = torch.tensor([SHARE, 1 - SHARE], dtype=x.dtype)
    density = dist.Normal(at, 0.5).log_prob(x.unsqueeze(-1)) + shares.log()
    pyro.factor("density", density.logsumexp(-1) + math.log(20.0))


def in_single_precision(y):
    """A model that does not run in double precision."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(1, dtype=torch.float32), 1.0).to_event(1))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Normal(torch.ones(4, 1) @ mean, torch.ones(4, dtype=torch.float32)), obs=y)


@pytest.fixture
def looked(monkeypatch):
    """Sizes of the log joints in which modes are looked for; nothing is known before."""
    calls = []
    locate = Laplace.locate

    def counting(self, log_joint):
        calls.append(log_joint.size)
        return locate(self, log_joint)

    monkeypatch.setattr(Laplace, "locate", counting)
    places._KNOWN.places.clear()
    return calls


def test_one_search_serves_all_fits_of_a_model(looked):
    first = sweepvi.fit(normal, (Y,), **QUICK, restarts=1)
    assert (first.verdict.trust, first.verdict.numbers["modes"]) == ("yes", 1)
    second = sweepvi.fit(normal, (Y,), **QUICK, restarts=1, geometry="laplace")
    assert second.verdict.numbers["modes"] == 1
    assert looked == [1]


@pytest.mark.parametrize(("geometry", "restarts"), [("none", 2), ("standardize", 1)])
def test_a_fit_that_has_met_one_of_two_modes_is_not_trusted(geometry, restarts):
    result = sweepvi.fit(two_modes, geometry=geometry, **QUICK, restarts=restarts, seed=1, dtype="float64")
    numbers = result.verdict.numbers
    assert numbers["k_hat"] < 0.7
    assert numbers["agreeing"] == restarts
    assert (numbers["modes"], numbers["modes_missed"]) == (2, 1)
    assert result.verdict.trust != "yes"
    # The mode that is left out, of the two whose masses are known.
    place = "largest has a log evidence of "
    told = next(float(each.split(place)[1].split()[0]) for each in result.verdict.reasons if place in each)
    found_low = float(result.posterior["x"].mean) < 0
    assert told == pytest.approx(math.log(1 - SHARE if found_low else SHARE), abs=0.06)


@pytest.mark.parametrize(
    "why",
    [
        {"posterior_draws": 0},
        {"steps": 100, "optimizer": {"name": "adam", "lr": 1e-6}, "scheduler": "constant"},
        {"engine": "eager"},
    ],
    ids=["no draws are asked for", "it is a bad fit", "draws are too few to trust it"],
)
def test_nobody_looks_where_the_fit_is_not_trusted_anyway(why, looked):
    result = sweepvi.fit(normal, (Y,), **{**QUICK, **({} if "engine" in why else {"restarts": 1}), **why})
    assert result.verdict.trust != "yes"
    assert result.verdict.numbers["modes"] is None
    assert looked == []


def test_nobody_looks_in_models_of_long_programs(looked, monkeypatch):
    monkeypatch.setattr(modes, "SHORT", 10)
    result = sweepvi.fit(normal, (Y,), **QUICK)
    assert (result.verdict.trust, result.verdict.numbers["modes"]) == ("yes", None)
    assert looked == []


def test_a_model_that_has_no_density_to_search_is_fitted_all_the_same():
    result = sweepvi.fit(in_single_precision, (Y,), **QUICK)
    assert (result.status, result.verdict.trust, result.verdict.numbers["modes"]) == ("finished", "yes", None)
