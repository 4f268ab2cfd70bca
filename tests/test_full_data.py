"""A fit whose steps take minibatches is scored, and sampled, on all of its data."""

from __future__ import annotations

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import sweepvi

MEAN_FIELD = {"name": "auto_normal", "init": "mean"}
X = torch.linspace(-1.0, 3.0, 12)
STILL = {"optimizer": {"name": "sgd", "lr": 1e-30}, "steps": 2, "score_draws": 4}


def regression(x, batch=None):
    """One global variable: a minibatch changes the scale of the data, and nothing else."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=batch) as rows:
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x[rows])


def local(x, batch=None):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.deterministic("twice", 2 * z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def own_guide(x, batch=None):
    loc = pyro.param("loc", torch.arange(float(len(x))))
    pyro.sample("mean", dist.Normal(pyro.param("center", torch.zeros(())), 1.0))
    with pyro.plate("data", len(x), subsample_size=batch) as rows:
        pyro.sample("z", dist.Normal(loc[rows], 1e-3))


def stubborn(x, batch=None):
    """Knows the size of its minibatch by heart."""
    with pyro.plate("data", len(x), subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x) if batch is None else batch), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


@pytest.mark.parametrize(
    ("model", "guide"),
    [(regression, "auto_normal"), (local, MEAN_FIELD), (local, own_guide)],
    ids=["regression", "local", "own"],
)
def test_the_score_is_that_of_all_data(model, guide):
    """Of the same parameters, with the same noise, to the last bit; so is a draw."""
    whole, part = (sweepvi.fit(model, (X, batch), guide=guide, **STILL) for batch in (None, 4))
    assert part.elbo == whole.elbo
    assert part.notes == whole.notes == []
    assert part.data_size == whole.data_size == len(X)
    draws, too = whole.sample(3), part.sample(3)
    assert draws.keys() == too.keys()
    assert all(torch.equal(draws[name], too[name]) for name in draws)


def test_steps_still_take_minibatches():
    seen = []

    def model(x):
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            seen.append(len(rows))
            pyro.sample("x", dist.Normal(pyro.param("center", torch.zeros(())), 1.0), obs=x[rows])

    sweepvi.fit(model, (X,), guide=lambda x: None, steps=4, score_draws=3)
    assert seen[-3:] == [12] * 3
    assert seen[:7] == [5] * 7


def test_minibatches_can_be_asked_for():
    result = sweepvi.fit(local, (X, 4), score_minibatches=True, **STILL)
    assert result.notes == ["the ELBO is over random minibatches of data, scaled up"]
    assert result.data_size == len(X)


@pytest.mark.parametrize(
    ("model", "guide"), [(stubborn, "auto_normal"), (local, "auto_diagonal_normal")], ids=["stubborn", "local"]
)
def test_what_cannot_run_on_all_data_is_scored_on_minibatches_and_says_why(model, guide):
    result = sweepvi.fit(model, (X, 4), guide=guide, **STILL)
    assert result.status == "finished"
    assert math.isfinite(result.elbo)
    assert result.data_size == len(X)
    [note] = result.notes
    assert note.startswith("the ELBO is over random minibatches of data, scaled up; on all data: ")
    draws = result.sample(2)
    assert draws["z"].shape == (2, 4)
    assert draws["data"].shape == (2, 4)  # which rows they are of


def test_a_minibatch_that_the_program_chooses_stays():
    def given(x, rows):
        with pyro.plate("data", len(x), subsample=rows):
            pyro.sample("x", dist.Normal(pyro.param("center", torch.zeros(())), 1.0), obs=x[rows])

    result = sweepvi.fit(given, (X, torch.tensor([1, 5, 6])), guide=lambda x, rows: None, **STILL)
    [note] = result.notes
    assert "minibatches of data that the program chooses itself" in note
    assert result.data_size == len(X)


def test_the_elbo_per_datum(tmp_path):
    """No latent variable: the ELBO is the log likelihood."""

    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as rows:
            pyro.sample("x", dist.Normal(pyro.param("center", torch.tensor(1.0)), 1.0), obs=x[rows])

    result = sweepvi.fit(model, (X,), guide=lambda x: None, folder=tmp_path, **STILL)
    expected = (-0.5 * (X - 1.0) ** 2 - 0.5 * math.log(2 * math.pi)).mean().item()
    assert result.elbo_per_datum == pytest.approx(expected, rel=1e-5)
    assert result.elbo_per_datum * len(X) == pytest.approx(result.elbo)
    saved = json.loads((tmp_path / "result.json").read_text())
    assert (saved["data_size"], saved["elbo_per_datum"]) == (len(X), result.elbo_per_datum)


def observed(**sites):
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        for name, (fn, value) in sites.items():
            pyro.sample(name, fn, obs=value)
        pyro.factor("penalty", torch.tensor(0.0))
        pyro.deterministic("zero", torch.zeros(7))

    return model


MASK = torch.tensor([True, False, True])


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (observed(), 0),
        (observed(x=(dist.Normal(0.0, 1.0), torch.tensor(1.0))), 1),
        (observed(x=(dist.Normal(torch.zeros(5), 1.0).to_event(1), torch.zeros(5))), 1),
        (observed(x=(dist.Normal(torch.zeros(4, 5), 1.0).to_event(1), torch.zeros(4, 5))), 4),
        (observed(x=(dist.Normal(0.0, 1.0).expand([3]), torch.zeros(3)), y=(dist.Poisson(2.0), torch.tensor(2.0))), 4),
        (poutine.mask(observed(x=(dist.Normal(0.0, 1.0).expand([3]), torch.zeros(3))), mask=MASK), 2),
    ],
)
def test_what_counts_as_a_datum(model, size):
    validate = pyro.settings.get("validate_distributions_pyro")
    pyro.enable_validation(False)
    try:
        result = sweepvi.fit(model, guide="auto_normal", **STILL)
    finally:
        pyro.enable_validation(validate)
    assert result.data_size == size
    assert (result.elbo_per_datum is None) == (size == 0)
