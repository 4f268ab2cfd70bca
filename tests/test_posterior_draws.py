"""Draws of a result: many at a time, each as if it were made alone."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.engine import posterior_draws
from sweepvi.engine.lanes.captured import NotCapturedError

Y = torch.tensor([0.5, 1.5, 1.0])
FIT = {"steps": 5, "score_draws": 0, "posterior_draws": 0, "engine": "eager"}


def conjugate(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    return pyro.deterministic("twice", 2.0 * mu)


class Fixed:
    """A guide that is what it says."""

    def __call__(self, y):
        loc, scale = pyro.param("loc", torch.tensor(0.75)), pyro.param("scale", torch.tensor(0.5))
        return pyro.sample("mu", dist.Normal(loc, scale))


@pytest.fixture
def one_by_one(monkeypatch):
    """Draws as they are where programs cannot be vectorised."""

    def refuse(*_):
        raise NotCapturedError("not here")

    monkeypatch.setattr(posterior_draws, "_Together", refuse)


def fitted(model=conjugate, guide=None, **more):
    rates = {"optimizer": {"name": "sgd", "lr": 1e-12}}
    return sweepvi.fit(model, (Y,), guide=guide or Fixed(), **{**FIT, **rates, **more})


def demand_of_guide(draws, n):
    error = 0.5 / math.sqrt(n)
    assert draws["mu"].shape == (n,)
    assert len(draws["mu"].unique()) > 0.99 * n
    assert abs(draws["mu"].mean() - 0.75) < 4 * error
    assert abs(draws["mu"].std() - 0.5) < 4 * error
    assert torch.equal(draws["twice"], 2.0 * draws["mu"])


def test_they_are_the_guides():
    demand_of_guide(fitted().sample(5000), 5000)


def test_so_are_those_that_are_made_one_by_one(one_by_one):
    demand_of_guide(fitted().sample(500), 500)


def test_they_are_made_together(monkeypatch):
    monkeypatch.setattr(posterior_draws, "_stacked", lambda draws: pytest.fail("one by one"))
    fitted().sample(10)


def test_the_first_are_the_same_whatever_their_number():
    result = fitted()
    few, many = result.sample(3, seed=7), result.sample(1000, seed=7)
    torch.testing.assert_close(few["mu"], many["mu"][:3])
    assert not torch.equal(few["mu"], result.sample(3, seed=8)["mu"])
    assert result.sample(0) == {}


def test_log_weights_are_those_of_the_draws():
    pytest.importorskip("arviz_base")
    tree = fitted(dtype="float64").to_arviz(200)
    mu, found = (
        torch.tensor(tree[g][name].values[0]) for g, name in (("posterior", "mu"), ("sample_stats", "log_weight"))
    )
    normal = torch.distributions.Normal
    joint = normal(0.0, 1.0).log_prob(mu) + normal(mu[:, None], 1.0).log_prob(Y.double()).sum(-1)
    torch.testing.assert_close(found, joint - normal(0.75, 0.5).log_prob(mu))


class Branches(Fixed):
    def __call__(self, y):
        mu = super().__call__(y)
        return mu if mu > 0 else -mu


class OfNumPy(Fixed):
    """Its draws are not torch's: together, all would be one."""

    def __call__(self, y):
        loc = pyro.param("loc", torch.tensor(0.75)) + 0.5 * float(np.random.standard_normal())
        pyro.param("scale", torch.tensor(0.5))
        return pyro.sample("mu", dist.Delta(loc))


class InPlace(Fixed):
    """It uses what it has written into, and not what it was given back."""

    def __call__(self, y):
        loc, scale = pyro.param("loc", torch.tensor(0.75)), pyro.param("scale", torch.tensor(0.5))
        noise = torch.zeros(())
        noise.normal_()
        return pyro.sample("mu", dist.Delta(loc + scale * noise))


@pytest.mark.parametrize("guide", [Branches(), OfNumPy(), InPlace()], ids=lambda guide: type(guide).__name__)
def test_programs_that_cannot_be_vectorised_draw_one_by_one(guide):
    demand_of_guide(fitted(guide=guide).sample(500), 500)


def test_discrete_variables_that_are_summed_over():
    def mixture(y):
        share = pyro.sample("share", dist.Beta(2.0, 2.0))
        with pyro.plate("rows", len(y)):
            which = pyro.sample("which", dist.Bernoulli(share), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(3.0 * which, 1.0), obs=y)

    result = sweepvi.fit(mixture, (Y,), estimator="trace_enum", **FIT)
    draws = result.sample(400)
    assert draws["which"].shape == (400, 3)
    assert 0.0 < draws["which"].double().mean() < 0.5
    # Of y = 1.5, both halves are as likely given a share of a half.
    assert draws["which"][:, 1].double().mean() > draws["which"][:, 0].double().mean()
