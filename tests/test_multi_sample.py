"""Importance-weighted bounds: their noise and their scale; sticking the landing at the exact posterior."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_problems import Discrete, Reversed
from pyro.infer.autoguide import AutoMultivariateNormal

import sweepvi
from sweepvi import registry

BOUNDS = ("iwae", "dreg", "vimco")
LANES = 20_000
LOOPS = pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])


def built(name, **keys):
    return registry.build("estimator", {"name": name, **keys}).build()


def gradients(elbo, problem):
    """By parameter: one estimate a copy."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        elbo.loss_and_grads(problem.model, problem.guide)
        return {name: pyro.param(name).grad.double() for name in problem.start}


class Unlikely(Discrete):
    """The same problem with an ELBO far from zero, which is what makes score functions noisy."""

    Y = 8.0


def test_leaving_one_out_cuts_the_variance():
    keys = {"num_particles": 3, "vectorize_particles": True}
    plain, reduced = (gradients(built(name, **keys), Unlikely(LANES)) for name in ("iwae", "vimco"))
    assert all(reduced[name].var(0).sum() < plain[name].var(0).sum() / 5 for name in ("logit_a", "logits_b"))


def test_dreg_is_less_noisy_the_more_particles():
    """iwae's signal drowns (Rainforth et al. 2018): its signal-to-noise ratio falls, that of dreg does not."""

    def ratio(name, particles):
        elbo = built(name, num_particles=particles, vectorize_particles=True)
        found = gradients(elbo, Reversed(LANES))["loc"]
        return abs(found.mean() / found.std()).item()

    assert ratio("iwae", 32) < ratio("iwae", 2)
    assert ratio("dreg", 32) > 2 * ratio("iwae", 32)


def test_a_minibatchs_scale_is_a_factor_of_the_bound():
    data = torch.linspace(-1.0, 1.0, 6)

    def model(batch):
        with pyro.plate("rows", 6, subsample=torch.arange(batch)) as rows:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=data[rows] * 0)

    def guide(batch):
        with pyro.plate("rows", 6, subsample=torch.arange(batch)):
            pyro.sample("z", dist.Normal(0.0, math.sqrt(0.5)))  # the posterior: all weights are the evidence

    for name in BOUNDS:
        elbo = built(name, num_particles=3)
        assert elbo.loss(model, guide, 2) == pytest.approx(elbo.loss(model, guide, 6), rel=1e-5)


A = torch.tensor([[1.0, 0.3], [0.2, 1.5], [0.7, -0.4], [-1.0, 0.8]], dtype=torch.float64)
Y = torch.tensor([1.0, -0.5, 0.3, 0.8], dtype=torch.float64)


def regression(batch=None):
    w = pyro.sample("w", dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1))
    with pyro.plate("rows", 4, subsample_size=batch) as rows:
        pyro.sample("y", dist.Normal((A[rows] * w).sum(-1), 0.5), obs=Y[rows])


COVARIANCE = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + A.T @ A / 0.25)
MEAN = COVARIANCE @ A.T @ Y / 0.25
TRIL = torch.linalg.cholesky(COVARIANCE)


def posterior():
    loc = pyro.param("loc", MEAN.clone())
    tril = pyro.param("tril", TRIL.clone(), constraint=dist.constraints.lower_cholesky)
    pyro.sample("w", dist.MultivariateNormal(loc, scale_tril=tril))


def flow():
    """The same as a transformed normal, whose transform remembers what it has made."""
    loc = pyro.param("loc", MEAN.clone())
    tril = pyro.param("tril", TRIL.clone(), constraint=dist.constraints.lower_cholesky)
    base = dist.Normal(torch.zeros(2, dtype=torch.float64), 1.0).to_event(1)
    transform = dist.transforms.LowerCholeskyAffine(loc, tril, cache_size=1)
    pyro.sample("w", dist.TransformedDistribution(base, [transform]))


def auto():
    guide = AutoMultivariateNormal(regression)
    guide()
    with torch.no_grad():
        guide.loc.copy_(MEAN)
        guide.scale = TRIL.diag()
        guide.scale_tril = TRIL / TRIL.diag()[:, None]
    return guide


@LOOPS
@pytest.mark.parametrize("guide", ["posterior", "flow", "auto"])
def test_stl_is_without_noise_at_the_posterior(guide, vectorize):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        sizes = {name: _largest(name, guide, vectorize) for name in ("trace", "stl")}
    finally:
        torch.set_default_dtype(before)
    print(f"largest gradient at the posterior, {guide}: {sizes}")
    assert sizes["stl"] < 1e-11
    assert sizes["trace"] > 0.1


def _largest(name, guide, vectorize):
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        program = auto() if guide == "auto" else globals()[guide]
        elbo = built(name, num_particles=2, vectorize_particles=vectorize)
        largest = 0.0
        for _ in range(20):
            elbo.loss_and_grads(regression, program)
            for parameter in pyro.get_param_store():
                unconstrained = pyro.param(parameter).unconstrained()
                largest = max(largest, unconstrained.grad.abs().max().item())
                unconstrained.grad = None
    return largest


def test_stl_sees_the_same_minibatch_twice():
    """A guide with local draws, which is run a second time."""

    def model():
        with pyro.plate("rows", 100, subsample_size=5) as rows:
            z = pyro.sample("z", dist.Normal(rows.double(), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=rows.double())

    def guide():
        loc = pyro.param("loc", torch.arange(100.0, dtype=torch.float64))
        with pyro.plate("rows", 100, subsample_size=5) as rows:
            pyro.sample("z", dist.Normal(loc[rows], math.sqrt(0.5)))

    for name in ("stl", "dreg"):
        keys = {"num_particles": 2} if name == "dreg" else {}
        with pyro.get_param_store().scope():
            built(name, **keys).loss_and_grads(model, guide)
            assert pyro.param("loc").grad.abs().max() < 1e-10


BAD = {
    "estimator.baselines.zz": {"name": "trace_graph", "baselines": {"zz": "decaying"}},
    "estimator.baselines.w": {"name": "trace_graph", "baselines": {"w": "decaying"}},
    "estimator.baselines.k.hidden": {"name": "trace_graph", "baselines": {"k": {"kind": "decaying", "hidden": [3]}}},
    "estimator.baseline_beta": {"name": "trace_graph", "baseline_beta": 1.0},
    "estimator.num_particles": {"name": "rloo", "num_particles": 1},
    "estimator": {"name": "dreg"},
}


def mixed():
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(w + pyro.sample("k", dist.Bernoulli(0.3)), 1.0), obs=torch.tensor(1.0))


def mixed_guide(infer=None):
    def guide():
        pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), infer=infer)
        logits = pyro.param("logit", torch.tensor(0.0))
        pyro.sample("k", dist.Bernoulli(logits=logits), infer={"baseline": {"use_decaying_avg_baseline": True}})

    return guide


def guide_without_baselines():
    pyro.sample("w", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))
    pyro.sample("k", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.0))))


@pytest.mark.parametrize("key", BAD)
def test_what_does_not_fit_is_said_before_the_fit(key):
    with pytest.raises(sweepvi.ConfigError) as caught:
        sweepvi.fit(mixed, guide=guide_without_baselines, estimator=BAD[key], steps=3)
    [problem] = caught.value.problems
    assert problem.key == key
    if key == "estimator.baselines.zz":
        assert "valid: k, w" in problem.message
    if key == "estimator.baselines.w":
        assert "w (Normal)" in problem.message
        assert "can have one: k" in problem.message
    if key == "estimator":
        assert "k (Bernoulli)" in problem.message


def test_a_draw_that_is_differentiated_may_be_said_to_have_none():
    node = {"name": "trace_graph", "baselines": {"w": "none", "*": "decaying"}}
    assert sweepvi.fit(mixed, guide=guide_without_baselines, estimator=node, steps=3).status == "finished"


def test_a_baseline_of_the_guide_that_would_be_ignored_is_an_error():
    with pytest.raises(sweepvi.ConfigError, match=r"baselines .infer. at k, which only estimator=trace_graph uses"):
        sweepvi.fit(mixed, guide=mixed_guide(), steps=3)
    infer = {"baseline": {"use_decaying_avg_baseline": True}}
    with pytest.raises(sweepvi.ConfigError, match=r"infer baseline of w: w .Normal. is differentiated"):
        sweepvi.fit(mixed, guide=mixed_guide(infer), estimator="trace_graph", steps=3)


def test_stl_runs_a_network_twice_without_a_warning():
    network = torch.nn.Linear(1, 2)

    def model():
        with pyro.plate("rows", 4):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=Y.float())

    def guide():
        pyro.module("network", network)
        with pyro.plate("rows", 4):
            loc, log_scale = network(Y.float()[:, None]).unbind(-1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    with pyro.get_param_store().scope():
        built("stl").loss_and_grads(model, guide)
        assert network.weight.grad.abs().min() > 0
