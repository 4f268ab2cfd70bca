"""The probe: its numbers against closed forms, its choice against its numbers, and what it leaves unchanged."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import generator_states
from pyro.infer import Trace_ELBO
from torch import nn

import sweepvi
from sweepvi.api import recipe_from
from sweepvi.errors import ConfigError
from sweepvi.estimators import Estimator, Trace, TraceGraph
from sweepvi.keys import Key
from sweepvi.private import unconstrained_params
from sweepvi.probing import measuring
from sweepvi.probing.agreement import compared
from sweepvi.probing.candidates import label_of
from sweepvi.probing.command import main
from sweepvi.probing.moments import Moments
from sweepvi.probing.ranking import blocks, verdict
from sweepvi.probing.row import Noise, Row

X = torch.tensor([1.0, 2.5, 0.5])
LOC, LOG_SCALE = 0.3, -0.5
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
DEADLINE = 60


def conjugate(x):
    z = pyro.sample("z", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def normal(x):
    loc, log_scale = pyro.param("loc", torch.tensor(LOC)), pyro.param("log_scale", torch.tensor(LOG_SCALE))
    pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def exact(loc=LOC, log_scale=LOG_SCALE):
    """Mean and variance of the reparameterised gradient of -ELBO, of which only log q(z) = -log_scale + … and
    log p(x, z) = S z - P z² / 2 + … depend on the parameters, with z = loc + scale ε.
    """
    precision, total, scale = 1 / 2.0**2 + len(X), float(X.sum()), math.exp(log_scale)
    slope = precision * loc - total
    mean = {"loc": slope, "log_scale": precision * scale**2 - 1}
    variance = {"loc": (precision * scale) ** 2, "log_scale": (slope * scale) ** 2 + 2 * (precision * scale**2) ** 2}
    return mean, variance


def probe(**arguments):
    few = {"estimators": "trace", "particles": 1, "draws": 100, "warmup": 2, "guide": normal}
    return sweepvi.probe(conjugate, (X,), **few | arguments)


def row_of(result, estimator, particles=1):
    [row] = [row for row in result.rows if (row.estimator, row.particles) == (estimator, particles)]
    return row


def problems_of(function, *arguments, **keywords):
    with pytest.raises(ConfigError) as caught:
        function(*arguments, **keywords)
    return {problem.key: problem.message for problem in caught.value.problems}


class Altered:
    """Pyro's estimator, after whose every gradient something is done."""

    def __init__(self, after):
        self.elbo, self.after, self.calls = Trace_ELBO(), after, 0

    def loss(self, *args, **kwargs):
        return self.elbo.loss(*args, **kwargs)

    def loss_and_grads(self, *args, **kwargs):
        loss = self.elbo.loss_and_grads(*args, **kwargs)
        self.calls += 1
        self.after(self.calls, unconstrained_params())
        return loss


@dataclass(frozen=True)
class Scaled(Estimator):
    """A wrong estimator, by this factor."""

    factor: Annotated[float, Key("what gradients are multiplied with")] = 1.5

    def build(self):
        return Altered(self.scale)

    def scale(self, calls, params):
        del calls
        for param in params.values():
            param.grad *= self.factor


@dataclass(frozen=True)
class Shrunk(Scaled):
    """One that says so."""

    unbiased: ClassVar[bool] = False
    factor: Annotated[float, Key("what gradients are multiplied with")] = 0.1


@dataclass(frozen=True)
class Broken(Estimator):
    """Every fourth gradient is NaN."""

    def build(self):
        return Altered(lambda calls, params: params["loc"].grad.mul_(math.nan if calls % 4 == 0 else 1.0))


@dataclass(frozen=True)
class Raising(Estimator):
    """Computes losses, but no gradients."""

    def build(self):
        return Altered(self.refuse)

    def refuse(self, calls, params):
        raise RuntimeError(f"no gradients of {len(params)} parameters")


@dataclass(frozen=True)
class OtherBound(Shrunk):
    """The gradient of something else."""

    objective: ClassVar[str] = "-other bound"
    unbiased: ClassVar[bool] = True


# Numbers.


DRAWS = 800


@pytest.fixture(scope="module")
def many():
    """One row for each of 1 and 10 particles, of many draws."""
    return probe(estimators=Trace(vectorize_particles=True), particles=[1, 10], draws=DRAWS)


def test_variance_is_that_in_closed_form(many):
    _, variance = exact()
    for particles in (1, 10):
        [row] = [row for row in many.rows if row.particles == particles]
        for noise, per_draw in [
            (row.total, sum(variance.values())),
            *((row.tensors[k], variance[k]) for k in variance),
        ]:
            assert noise.variance_se < 0.15 * noise.variance
            assert abs(noise.variance - per_draw / particles) < 4 * noise.variance_se
            assert noise.standard_error == pytest.approx((noise.variance / DRAWS) ** 0.5)


def test_mean_is_the_exact_gradient(many):
    mean, variance = exact()
    for row in many.rows:
        for name, value in mean.items():
            assert row.mean[name].dtype == torch.float64
            assert abs(row.mean[name].item() - value) < 4 * (variance[name] / row.particles / DRAWS) ** 0.5
        norm = math.hypot(*mean.values())
        assert row.total.mean_norm == pytest.approx(norm, abs=4 * row.total.standard_error)
        assert row.total.snr == pytest.approx(norm / (sum(variance.values()) / row.particles) ** 0.5, rel=0.1)


def test_the_norm_of_the_mean_is_corrected_for_its_noise():
    """At the posterior the gradient is zero, and the mean of few draws is not."""
    at_posterior = {"loc": float(X.sum()) / 3.25, "log_scale": -0.5 * math.log(3.25)}
    mean, _ = exact(**at_posterior)
    assert mean == pytest.approx({"loc": 0, "log_scale": 0}, abs=1e-9)

    def posterior(x):
        del x
        params = {name: pyro.param(name, torch.tensor(value)) for name, value in at_posterior.items()}
        pyro.sample("z", dist.Normal(params["loc"], params["log_scale"].exp()))

    noises = [probe(guide=posterior, seed=seed, draws=20).rows[0].total for seed in range(20)]
    squares = torch.tensor([noise.mean_norm**2 for noise in noises])
    # Uncorrected, the mean square would be the square of the standard error, and none would be zero.
    assert squares.mean() < 0.8 * torch.tensor([noise.standard_error**2 for noise in noises]).mean()
    assert (squares == 0).sum() > 5


def test_moments_are_those_of_torch_and_a_late_parameter_was_zero_before():
    torch.manual_seed(0)
    draws = [{"a": torch.randn(3, 4), "b": torch.randn(2)} if i >= 5 else {"a": torch.randn(3, 4)} for i in range(12)]
    moments = Moments()
    for draw in draws:
        moments.add(draw)
    whole = torch.stack([torch.cat([d["a"].flatten(), d.get("b", torch.zeros(2))]) for d in draws]).double()
    torch.testing.assert_close(moments.mean()["a"], whole[:, :12].mean(0).reshape(3, 4))
    torch.testing.assert_close(moments.mean()["b"], whole[:, 12:].mean(0))
    assert moments.total().size == 14
    assert moments.total().variance == pytest.approx(whole.var(0).sum().item())
    assert moments.tensors()["b"].variance == pytest.approx(whole[:, 12:].var(0).sum().item())


def test_the_clock_is_read_around_each_gradient():
    rows = probe(particles=[1, 20], draws=15).rows
    assert 5 * rows[0].seconds < rows[1].seconds < 60 * rows[0].seconds


# The choice.


def made(estimator="trace", particles=1, variance=1.0, seconds=1.0, **fields):
    """A row with given numbers."""
    noise = Noise(1, 1.0, 0.1, variance, 0.01 * variance)
    values = {"node": {}, "objective": "-ELBO", "unbiased": True, "status": "ok", "total": noise, "seconds": seconds}
    return Row(estimator, particles, **values | fields)


def test_best_is_what_the_numbers_say():
    result = probe(estimators=["trace", "trace_graph", Scaled(factor=2.0)], particles=[1, 5], draws=60)
    costs = {id(row): row.total.variance * row.seconds for row in result.rows}
    assert id(result.best) == min(costs, key=lambda key: costs[key])
    [block] = blocks(result.rows)
    assert [row.cost for row in block.rows] == sorted(costs.values())
    assert f"least variance per second, -ELBO: {result.best.words}" in str(result)
    assert result.best.estimator != "Scaled(factor=2.0)"


@pytest.mark.parametrize(
    ("rows", "configured", "said"),
    [
        (
            [made(seconds=6.3), made("trace_graph", 10)],
            "trace with 1 particle",
            "trace_graph with 10 particles, 6.3 times less than trace with 1 particle",
        ),
        (
            [made(), made("rloo", 4, seconds=2.0), made("stl", variance=1.5)],
            "trace with 1 particle",
            "trace with 1 particle, 1.5 times less than stl with 1 particle",
        ),
        (
            [made(seconds=3000.0), made("rloo", 4), made("stl", variance=9.0)],
            "iwae with 2 particles",
            "rloo with 4 particles, 3,000 times less than trace with 1 particle",
        ),
        (
            [made("a", variance=0.99), made("b"), made("c", variance=2.0)],
            "c with 1 particle",
            "a with 1 particle, 2.02 times less than c with 1 particle; about as good: b with 1 particle",
        ),
        (
            [made("a", variance=0.99), made("b")],
            "b with 1 particle",
            "a with 1 particle; about as good: b with 1 particle",
        ),
        (
            [made("a"), made("b", variance=0.0)],
            "a with 1 particle",
            "b with 1 particle, none at all, less than a with 1 particle",
        ),
        ([made()], "trace with 1 particle", None),
        ([made(), made("a", unbiased=False)], "trace with 1 particle", None),
        ([made(), made("a", status="failed", total=None)], "trace with 1 particle", None),
    ],
)
def test_verdict(rows, configured, said):
    [block] = blocks(rows)
    assert verdict(block, configured) == said


def test_only_gradients_of_the_same_are_compared():
    rows = [made("iwae", 10, objective="-IWAE bound"), made("iwae", 5, objective="-IWAE bound"), made(), made("a", 10)]
    found = blocks(rows)
    assert [block.words for block in found] == [
        "-ELBO",
        "-IWAE bound with 10 particles",
        "-IWAE bound with 5 particles",
    ]
    assert [len(block.rows) for block in found] == [2, 1, 1]


def test_a_row_of_another_objective_is_never_best():
    result = probe(estimators=["trace", OtherBound()], draws=40)
    assert result.best.estimator == "trace"
    assert row_of(result, "OtherBound").disagreement is None
    assert "\n-other bound with 1 particle, 2 parameters\n  OtherBound" in str(result)
    assert "least variance per second" not in str(result)
    assert probe(estimators=OtherBound(), draws=5).best is None


# Agreement.


def test_a_wrong_estimator_is_marked():
    result = probe(estimators=["trace", "trace_graph", Scaled()], draws=400)
    wrong = row_of(result, "Scaled").disagreement
    assert wrong.significant
    assert wrong.parameter == "loc"
    assert wrong.standard_errors > 5
    assert f"disagrees ({wrong.standard_errors:.1f} SE)" in str(result)
    assert f"Scaled with 1 particle disagrees with {wrong.reference}" in str(result)
    [right] = [row for row in result.rows if row.estimator != "Scaled" and row.disagreement]
    assert not right.disagreement.significant


def test_one_that_says_it_is_biased_is_shown_and_not_ranked():
    result = probe(estimators=["trace", Shrunk()], draws=100)
    row = row_of(result, "Shrunk")
    assert row.cost < result.best.cost
    assert result.best.estimator == "trace"
    assert f"biased ({row.disagreement.standard_errors:.1f} SE): not ranked" in str(result)
    assert "disagrees" not in str(result)


def with_draws(estimator, draws, **fields):
    """A row whose gradients were these, all of one parameter."""
    moments = Moments()
    for draw in draws:
        moments.add({"p": draw})
    return made(estimator, total=moments.total(), tensors=moments.tensors(), mean=moments.mean(), **fields)


def disagreements(*rows):
    return [row.disagreement for row in compared(rows, 100) if row.disagreement]


@pytest.mark.parametrize("tail", [lambda noise: noise, torch.exp], ids=["normal", "skewed"])
@pytest.mark.parametrize("entries", [1, 20])
def test_chance_alone_marks_no_row_and_a_bias_does(tail, entries):
    torch.manual_seed(1)
    for _ in range(40):
        a, b = tail(torch.randn(2, 100, entries, dtype=torch.float64))
        [right] = disagreements(with_draws("a", a), with_draws("b", b))
        assert not right.significant
        [wrong] = disagreements(with_draws("a", a), with_draws("b", b + 1.5 * a.std()))
        assert wrong.significant


def test_the_distance_is_in_standard_errors():
    torch.manual_seed(0)
    a, b = torch.randn(2, 100, 3, dtype=torch.float64)
    [found] = disagreements(with_draws("a", a), with_draws("b", 2 * b))
    errors = [(draws.var(0).sum() / 100) ** 0.5 for draws in (a, 2 * b)]
    assert found.standard_errors == pytest.approx((a.mean(0) - 2 * b.mean(0)).norm() / math.hypot(*errors))
    assert (found.parameter, found.reference) == ("p", "a with 1 particle")


def test_rounding_is_no_disagreement():
    torch.manual_seed(0)
    noisy = 3 + torch.randn(100, 2, dtype=torch.float64)
    exactly = torch.full((100, 2), 3.0, dtype=torch.float64) + 1e-9 * noisy
    rows = [with_draws("a", exactly), with_draws("b", exactly + 1e-6), with_draws("c", exactly + 1e-3)]
    assert [row.disagreement and row.disagreement.significant for row in compared(rows, 100)] == [None, False, True]
    # Without any noise, nothing is beyond chance.
    still = torch.zeros(100, 2)
    assert not disagreements(with_draws("a", still), with_draws("b", still + 1))[0].significant


def test_few_draws_are_not_compared():
    torch.manual_seed(0)
    rows = [with_draws("a", torch.randn(5, 1)), with_draws("b", 100 + torch.randn(5, 1))]
    assert [row.disagreement for row in compared(rows, 5)] == [None, None]


# What goes wrong in a row is said in it.


def test_gradients_that_are_not_finite_are_counted():
    result = probe(estimators=["trace", Broken()], draws=40, warmup=2)
    row = row_of(result, "Broken")
    assert row.nonfinite == 10
    assert row.status.startswith("10 of 40 gradients are not finite: non-finite gradient of loc")
    assert (row.total, row.cost) == (None, None)
    assert row.status in str(result)
    assert result.best.estimator == "trace"
    assert probe(estimators=Broken(), draws=40).best is None


def test_an_exception_is_the_status_of_its_row():
    result = probe(estimators=[Raising(), "trace"], draws=5)
    assert row_of(result, "Raising").status.startswith("failed: RuntimeError: no gradients of 2 parameters")
    assert row_of(result, "trace").status == "ok"


def test_a_single_pair_of_draws_has_a_variance_and_no_more():
    [row] = probe(draws=2).rows
    assert row.total.variance > 0
    assert row.total.variance_se is None


# Where.


FIT = {"guide": normal, "steps": 150, "score_draws": 0, "seed": 3}


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.05}, {"name": "schedule_free_adam", "lr": 0.05}])
def test_at_the_end_of_a_fit_gradients_are_those_of_its_result(optimizer, tmp_path):
    fitted = sweepvi.fit(conjugate, (X,), optimizer=optimizer, folder=tmp_path / "run", **FIT)
    mean, variance = exact(**{name: value.item() for name, value in fitted.params.items()})
    at_end = probe(at=fitted, draws=400)
    for name, value in mean.items():
        assert abs(at_end.rows[0].mean[name].item() - value) < 4 * (variance[name] / 400) ** 0.5
    assert at_end.rows[0].total.mean_norm < 0.5 * probe(draws=400).rows[0].total.mean_norm
    again = probe(at=tmp_path / "run", draws=400)
    assert again.rows[0].total == at_end.rows[0].total
    assert "150 steps" in again.place


def test_a_run_of_another_guide_is_refused(tmp_path):
    sweepvi.fit(conjugate, (X,), folder=tmp_path / "run", **FIT | {"steps": 2})
    problems = problems_of(probe, at=tmp_path / "run", guide="auto_normal")
    assert "AutoNormal.locs.z" in problems["at"]
    assert "loc, log_scale" in problems["at"]
    assert "no checkpoint" in problems_of(probe, at=tmp_path)["at"]
    loaded = sweepvi.FitResult.load(tmp_path / "run")
    assert "without its model" in problems_of(probe, at=loaded)["at"]


def coin(y):
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Normal(5 * z, 1.0), obs=y)


def coin_guide(y):
    logits = pyro.param("logits", torch.zeros(len(y)))
    with pyro.plate("rows", len(y)):
        pyro.sample("z", dist.Bernoulli(logits=logits))


COINS = {"guide": coin_guide, "particles": 1, "draws": 200}
Y = torch.tensor([0.0, 5.0, 2.0, 7.0])


def test_baselines_warm_up():
    decaying = TraceGraph(baselines={"z": "decaying"})
    cold, warm = (
        sweepvi.probe(coin, (Y,), estimators=decaying, warmup=warmup, **COINS | {"draws": 20}).rows[0].total.variance
        for warmup in (0, 50)
    )
    assert warm < 0.8 * cold


def test_baselines_start_anew_at_the_end_of_a_fit_that_has_them(tmp_path):
    """So small a step size leaves the parameters where they are, but not the averages."""
    estimator = {"name": "trace_graph", "baselines": {"z": "decaying"}}
    still = {"optimizer": {"name": "sgd", "lr": 1e-12}, "steps": 60, "score_draws": 0}
    fitted = sweepvi.fit(coin, (Y,), guide=coin_guide, estimator=estimator, **still)
    start, end = (
        sweepvi.probe(coin, (Y,), estimators=estimator, warmup=0, at=at, **COINS | {"draws": 20}).rows[0].total
        for at in (None, fitted)
    )
    assert end.variance == pytest.approx(start.variance, rel=1e-6)


def test_networks_of_baselines_are_trained_and_not_measured(monkeypatch):
    def variance():
        network = TraceGraph(baselines={"z": "network"})
        [row] = sweepvi.probe(coin, (Y,), estimators=network, **COINS).rows
        assert list(row.tensors) == ["logits"]
        return row.total.variance

    trained = variance()
    monkeypatch.setattr(measuring, "BASELINE_LR", 0.0)
    assert trained != variance()


def test_a_guides_own_network_of_baselines_is_not_measured():
    net = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0))

    def guide(y):
        pyro.module("helper", net)
        logits = pyro.param("logits", torch.zeros(len(y)))
        infer = {"baseline": {"nn_baseline": net, "nn_baseline_input": y[:, None]}}
        with pyro.plate("rows", len(y)):
            pyro.sample("z", dist.Bernoulli(logits=logits), infer=infer)

    [row] = sweepvi.probe(coin, (Y,), estimators="trace_graph", **COINS | {"guide": guide}).rows
    assert list(row.tensors) == ["logits"]


def test_frozen_parameters_are_not_measured():
    groups = {"scales": {"glob": "log_*", "frozen": True}, "others": {"kind": "rest"}}
    recipe = recipe_from(
        conjugate,
        (X,),
        guide=normal,
        estimator="trace",
        optimizer="adam",
        scheduler="constant",
        partition={"name": "groups", "groups": groups},
        engine={"name": "eager"},
    )
    [row] = sweepvi.probe(recipe, estimators="trace", particles=1, draws=5).rows
    assert list(row.tensors) == ["loc"]


# What is compared.


def test_by_default_every_estimator_that_fits_is_compared():
    result = sweepvi.probe(coin, (Y,), guide=coin_guide, draws=3, warmup=0)
    assert {("trace", 1), ("trace", 10), ("trace_graph", 10), ("rloo", 10)} <= {
        (r.estimator, r.particles) for r in result.rows
    }
    left_out = {(entry.estimator, entry.particles): entry.reason for entry in result.left_out}
    assert "cannot" in left_out["dreg", 10]
    assert "whole number >= 2" in left_out["rloo", 1]
    lines = str(result).partition("left out:")[2].splitlines()
    assert len(lines) == 1 + len(set(left_out.values()))
    for (estimator, particles), reason in left_out.items():
        [line] = [line for line in lines if line.endswith(f": {reason}")]
        assert estimator in line.replace(reason, "")
        assert str(particles) in line.replace(reason, "")


def test_one_that_is_named_and_does_not_fit_is_an_error():
    problems = problems_of(sweepvi.probe, coin, (Y,), guide=coin_guide, estimators=["trace", "dreg"], draws=3)
    assert list(problems) == ["estimator"]
    assert "2" in problems_of(probe, estimators="rloo", particles=1)["rloo with 1 particle"]


def test_the_configured_estimator_comes_first():
    recipe = recipe_from(
        conjugate,
        (X,),
        guide=normal,
        estimator={"name": "rloo", "num_particles": 3},
        optimizer="adam",
        scheduler="constant",
        partition="single",
        engine={"name": "eager", "seed": 5},
    )
    result = sweepvi.probe(recipe, particles=2, draws=3, warmup=0)
    assert [(row.estimator, row.particles) for row in result.rows][:2] == [("rloo", 3), ("rloo", 2)]
    assert result.configured == "rloo with 3 particles"
    assert set(problems_of(sweepvi.probe, recipe, guide=normal, seed=1)) == {"guide", "seed"}


def test_a_mapping_may_have_its_own_number_of_particles():
    result = probe(estimators=["trace", {"name": "trace", "num_particles": 7}, "trace"], particles=[1, 2], draws=3)
    assert [row.particles for row in result.rows] == [1, 2, 7]


def test_labels_say_what_is_not_a_default():
    assert label_of(Trace(num_particles=3)) == "trace"
    assert label_of(Trace(vectorize_particles=True)) == "trace(vectorize_particles=true)"
    assert label_of(TraceGraph(baselines={"z": "decaying"})) == "trace_graph(baselines={z: decaying})"
    assert label_of(Scaled(factor=2.0)) == "Scaled(factor=2.0)"


def test_everything_wrong_is_said_at_once():
    problems = problems_of(
        probe, estimators=["nope", 3], particles=[0], draws=1, warmup=-1, guide="auto_nomal", seed=-1, at=5
    )
    expected = {
        "estimators[0].name",
        "estimators[1]",
        "particles",
        "draws",
        "warmup",
        "guide.name",
        "engine.seed",
        "at",
    }
    assert set(problems) == expected
    assert "name at least one" in problems_of(probe, estimators=[])["estimators"]
    assert "at least one" in problems_of(probe, particles=[])["particles"]


def test_a_model_that_does_not_run_is_one_problem():
    def fails(x):
        raise KeyError(len(x))

    assert list(problems_of(sweepvi.probe, fails, (X,), draws=2)) == ["model"]


# What it does to the rest of the world.


def numbers(result):
    return [(row.total, row.tensors, row.disagreement) for row in result.rows]


def test_a_seed_fixes_every_number_but_the_clocks():
    torch.manual_seed(torch.seed())
    estimators = ["trace", "trace_graph"]
    first = probe(estimators=estimators)
    torch.randn(7)
    assert numbers(first) == numbers(probe(estimators=estimators))
    assert numbers(first) != numbers(probe(estimators=estimators, seed=1))
    alone = probe(estimators="trace_graph", warmup=9).rows[0]
    assert alone.total == row_of(first, "trace_graph").total


def test_nothing_else_changes():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(net(z[:, None]).squeeze(-1), 1.0), obs=x)

    pyro.param("mine", torch.ones(2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    generators = generator_states()
    result = sweepvi.probe(model, (X,), estimators="trace", particles=1, draws=4, warmup=2)
    assert result.rows[0].status == "ok"
    assert generator_states() == generators
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert all(param.grad is None for param in net.parameters())
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


def test_after_an_interrupt_there_are_the_rows_that_are_whole():
    before, told = signal.getsignal(signal.SIGINT), []

    def tell(line):
        told.append(line)
        if len(told) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    result = probe(estimators=["trace", "trace_graph"], particles=[1, 2], draws=10, progress=tell)
    assert told == ["row 1/4: trace with 1 particle", "row 2/4: trace with 2 particles"]
    assert result.status == "interrupted"
    assert [row.particles for row in result.rows] == [1]
    assert "1 of 4 rows" in str(result)
    assert signal.getsignal(signal.SIGINT) == before


# Files.


def test_a_saved_probe_reads_back(tmp_path):
    result = probe(estimators=["trace", Broken(), OtherBound(), Shrunk()], draws=40)
    result.save(tmp_path / "p")
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"probe.json", "probe.csv", "probe.png"}
    read = json.loads((tmp_path / "p/probe.json").read_text())
    assert read["best"] == {"estimator": "trace", "particles": 1}
    assert read["config"]["guide"]["name"] == "python"
    assert [row["status"] for row in read["rows"]] == [row.status for row in result.rows]
    with (tmp_path / "p/probe.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["parameter"] for line in lines if line["estimator"] == "trace"] == ["(all)", "loc", "log_scale"]
    assert float(lines[0]["variance"]) == result.rows[0].total.variance
    assert float(lines[0]["variance_seconds"]) == result.rows[0].cost
    assert (tmp_path / "p/probe.png").read_bytes().startswith(b"\x89PNG")
    assert "already" in problems_of(result.save, tmp_path / "p")["folder"]


def test_a_probe_without_noise_or_without_numbers_can_be_saved(tmp_path):
    probe(guide="auto_delta").save(tmp_path / "still")
    probe(estimators=Broken(), draws=8).save(tmp_path / "broken")
    infinite = replace(probe(draws=2), rows=(made(variance=0.0),))
    infinite.save(tmp_path / "infinite")
    assert json.loads((tmp_path / "infinite/probe.json").read_text())["rows"][0]["snr"] is None


# The command.


MINE = """
import pyro, pyro.distributions as dist, torch

def model():
    pyro.sample("x", dist.Normal(0.0, 1.0))

def nowhere():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.factor("edge", (0 * z).sqrt())
"""
QUICK = ["model=eight_schools", "draws=6", "warmup=1", "particles=1", "estimators=trace"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_the_command_in_a_process_of_its_own(tmp_path):
    words = ["model=eight_schools", "draws=5", "warmup=1", "particles=1,2", "estimators=[trace,{name: trace_graph}]"]
    done = subprocess.run(
        [sys.executable, "-m", "sweepvi.probe", *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert "least variance per second, -ELBO: " in done.stdout
    assert "row 4/4: trace_graph with 2 particles" in done.stderr
    [found] = tmp_path.glob("probes/*/*/probe.json")
    assert len(json.loads(found.read_text())["rows"]) == 4


def test_the_command_is_interrupted_with_what_it_has(tmp_path):
    words = [*QUICK, "estimators=trace,trace_graph", "draws=400", "folder=p"]
    command = [sys.executable, "-m", "sweepvi.probe", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, **pipes) as process:
        assert process.stderr.readline().startswith("row 1/2")
        assert process.stderr.readline().startswith("row 2/2")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, err
    assert "interrupted: 1 of 2 rows" in out
    assert len(json.loads((tmp_path / "p/probe.json").read_text())["rows"]) == 1


def test_at_a_runs_end_and_at_its_start(here, capsys):
    sweepvi.fit("eight_schools", steps=30, score_draws=0, folder="run")
    shown = {}
    for name, words in {"end": ["at=run"], "start": ["rerun=run"], "plain": QUICK[:1]}.items():
        assert main([*words, *QUICK[1:], f"folder={name}", "-q"]) == 0
        shown[name] = json.loads((here / name / "probe.json").read_text())
    assert "at the end of run (30 steps)" in shown["end"]["place"]
    assert shown["start"]["place"] == "at the start of the fit"
    variances = {name: probe["rows"][0]["variance"] for name, probe in shown.items()}
    assert variances["start"] == variances["plain"] != variances["end"]
    assert capsys.readouterr() == ("", "")


def test_no_numbers_at_all_is_status_1(here, capsys):
    assert main(["model=custom", "model.path=mine.py:nowhere", *QUICK[1:], "folder=p"]) == 1
    assert "6 of 6 gradients are not finite" in capsys.readouterr().out
    assert (here / "p/probe.json").exists()


def test_bad_words_are_said_all_at_once(here, capsys):
    words = ["estimators=nope", "particles=0", "draws=1", "warmup=x", "folder=mine.py", "at=nothing", "-m"]
    assert main([*words, "optimizer=adma", "hydra.run.dir=x"]) == 2
    said = capsys.readouterr().err
    for key in ("estimators[0].name = 'nope'", "particles = [0]", "draws = 1", "warmup = 'x'", "folder = 'mine.py'"):
        assert f"- {key}: " in said
    for key in ("nothing", "at = 'nothing'", "-m", "optimizer = 'adma'", "hydra.run.dir=x"):
        assert f"- {key}: " in said
    assert "10 problems" in said
    assert {path.name for path in here.iterdir()} == {"mine.py"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["draws=1,2"], "draws = [1, 2]: must be a whole number >= 2"),
        (["particles=range(1,3)"], "particles=range(1,3): cannot be read"),
        (["estimators="], "estimators=: cannot be read"),
        (["folder="], "folder=: name a folder"),
        (["resume=x"], "resume: nothing is resumed here; at=DIR"),
        (["--cfg", "job"], "--cfg job: these flags go with python -m sweepvi only"),
        (["draws"], "draws: cannot be read; write group=option"),
        (["model=custom", "model.path=mine.py:missing"], "no such name in"),
        (["rerun=."], ".: no run there"),
        (["at="], "at=: name a folder: at=DIR"),
        (["at=."], "at = '.': no checkpoint at"),
    ],
)
def test_bad_input(here, capsys, words, said):
    assert main([*QUICK, *words]) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == {"mine.py"}


def test_a_run_without_a_checkpoint_is_bad_input(here, capsys):
    sweepvi.fit("eight_schools", steps=2, score_draws=0, folder="run")
    (here / "run/checkpoint.safetensors").write_bytes(b"damaged")
    assert main(["at=run", "draws=2"]) == 2
    assert "at = 'run': run/checkpoint.safetensors is damaged" in capsys.readouterr().err
    (here / "run/checkpoint.safetensors").unlink()
    assert main(["at=run", "draws=2"]) == 2
    assert "at = 'run': no checkpoint at" in capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m sweepvi.probe")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == sweepvi.__version__


def test_the_function_can_be_called_whether_its_module_is_imported_or_not():
    called = "\ntry:\n    sweepvi.probe('eight_schools', draws=1)\nexcept sweepvi.ConfigError as e:\n    print(e)"
    script = f"import sweepvi{called}\nimport sweepvi.probe{called}\nfrom sweepvi import probe\nprint(callable(probe))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.stdout.splitlines() == ["draws = 1: must be a whole number >= 2"] * 2 + ["True"], done.stderr
    module = importlib.import_module("sweepvi.probe")
    assert module(conjugate, (X,), guide=normal, estimators="trace", particles=1, draws=2).rows[0].status == "ok"
