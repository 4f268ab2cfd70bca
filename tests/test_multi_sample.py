"""Importance-weighted bounds against their own exact gradients; sticking the landing at the exact posterior."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

import sweepvi
from sweepvi import registry

BOUNDS = ("iwae", "dreg", "vimco")
LANES = 20_000
LOOPS = pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])


def built(name, **keys):
    return registry.build("estimator", {"name": name, **keys}).build()


def gradients(elbo, model, guide, calls):
    """Loss a lane by call, and gradients by parameter: float64, [calls, LANES]."""
    losses, draws = [], {}
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        for _ in range(calls):
            losses.append(elbo.loss_and_grads(model, guide) / LANES)
            for name in list(pyro.get_param_store()):
                draws.setdefault(name, []).append(pyro.param(name).grad.double())
                pyro.param(name).grad = None
        losses.append(elbo.loss(model, guide) / LANES)
    return losses, {name: torch.stack(found) for name, found in draws.items()}


def assert_exact(draws, exact):
    for name, found in draws.items():
        error = found.std().item() / found.numel() ** 0.5
        assert abs(found.mean().item() - exact[name]) < 4 * error, name
        assert 4 * error < 0.1 * abs(exact[name]), f"{name}: too few draws"


DISCRETE = {"logit_a": -1.0, "logit_b0": -0.6, "logit_b1": -0.2}


def discrete_model():
    with pyro.plate("lanes", LANES):
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
        pyro.sample("y", dist.Normal(a + 2 * b, 1.0), obs=torch.tensor(2.5))


def discrete_guide():
    a_logit, b0, b1 = (pyro.param(name, torch.full((LANES,), value)) for name, value in DISCRETE.items())
    with pyro.plate("lanes", LANES):
        a = pyro.sample("a", dist.Bernoulli(logits=a_logit))
        pyro.sample("b", dist.Bernoulli(logits=a * b1 + (1 - a) * b0))


def discrete_bound(particles):
    """Minus the bound of some particles and its gradient, by enumeration of all their outcomes."""
    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in DISCRETE.items()}
    outcomes = []
    for a, b in itertools.product((0, 1), repeat=2):
        q_a, q_b = torch.sigmoid(leaves["logit_a"]), torch.sigmoid(leaves["logit_b1"] if a else leaves["logit_b0"])
        q = (q_a if a else 1 - q_a) * (q_b if b else 1 - q_b)
        p_b = 0.7 if a else 0.2
        p = (0.3 if a else 0.7) * (p_b if b else 1 - p_b)
        outcomes.append((q, math.log(p) - 0.5 * (2.5 - a - 2 * b) ** 2 - 0.5 * math.log(2 * math.pi) - q.log()))
    bound = torch.zeros((), dtype=torch.float64)
    for chosen in itertools.product(outcomes, repeat=particles):
        weights = torch.stack([weight for _, weight in chosen])
        probability = torch.stack([q for q, _ in chosen]).prod()
        bound = bound - probability * (torch.logsumexp(weights, 0) - math.log(particles))
    bound.backward()
    return bound.item(), {name: leaf.grad.item() for name, leaf in leaves.items()}


@LOOPS
@pytest.mark.parametrize("particles", [2, 3])
@pytest.mark.parametrize("name", ["iwae", "vimco"])
def test_discrete_gradients_are_those_of_the_bound(name, particles, vectorize):
    elbo = built(name, num_particles=particles, vectorize_particles=vectorize)
    losses, draws = gradients(elbo, discrete_model, discrete_guide, 15)
    bound, exact = discrete_bound(particles)
    assert losses == pytest.approx([bound] * len(losses), rel=0.02)
    assert_exact(draws, exact)


def test_leaving_one_out_cuts_the_variance():
    keys = {"num_particles": 3, "vectorize_particles": True}
    plain, reduced = (gradients(built(n, **keys), discrete_model, discrete_guide, 3)[1] for n in ("iwae", "vimco"))
    assert all(reduced[parameter].var() < plain[parameter].var() / 5 for parameter in plain)


NORMAL = {"loc1": -0.5, "log1": 0.3, "slope": -0.4, "log2": 0.2, "effect": 0.7}


def normal_model():
    """A chain of two, with a parameter of the model's own."""
    effect = pyro.param("effect", torch.full((LANES,), NORMAL["effect"]))
    with pyro.plate("lanes", LANES):
        z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
        z2 = pyro.sample("z2", dist.Normal(effect * z1, 1.0))
        pyro.sample("y", dist.Normal(z2, 0.8), obs=torch.tensor(2.0))


def normal_guide():
    loc, log1, slope, log2 = (pyro.param(n, torch.full((LANES,), NORMAL[n])) for n in ("loc1", "log1", "slope", "log2"))
    with pyro.plate("lanes", LANES):
        z1 = pyro.sample("z1", dist.Normal(loc, log1.exp()))
        pyro.sample("z2", dist.Normal(slope * z1 + 1.0, log2.exp()))


def normal_bound(nodes=24):
    """Minus the bound of two particles and its gradient: Gauss-Hermite quadrature over their four standard normals."""
    import numpy as np

    points, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(nodes))
    weights = weights / weights.sum()
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in NORMAL.items()}
    e1, e2 = points[:, None], points[None, :]
    z1 = p["loc1"] + p["log1"].exp() * e1
    z2 = p["slope"] * z1 + 1.0 + p["log2"].exp() * e2

    def log_normal(x, mean, scale):
        return -0.5 * ((x - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)

    one, noise = torch.ones((), dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    log_p = log_normal(z1, 0.0, one) + log_normal(z2, p["effect"] * z1, one) + log_normal(2.0 * one, z2, noise)
    log_q = log_normal(z1, p["loc1"], p["log1"].exp()) + log_normal(z2, p["slope"] * z1 + 1.0, p["log2"].exp())
    log_w, share = (log_p - log_q).flatten(), (weights[:, None] * weights[None, :]).flatten()
    pairs = torch.logaddexp(log_w[:, None], log_w[None, :]) - math.log(2)
    bound = -(share[:, None] * share[None, :] * pairs).sum()
    bound.backward()
    return bound.item(), {name: leaf.grad.item() for name, leaf in p.items()}


@LOOPS
@pytest.mark.parametrize("name", BOUNDS)
def test_gradients_along_a_chain_are_those_of_the_bound(name, vectorize):
    elbo = built(name, num_particles=2, vectorize_particles=vectorize)
    losses, draws = gradients(elbo, normal_model, normal_guide, 15)
    bound, exact = normal_bound()
    assert losses == pytest.approx([bound] * len(losses), rel=0.02)
    assert_exact(draws, exact)


def test_dreg_is_less_noisy_the_more_particles():
    """iwae's signal drowns (Rainforth et al. 2018): its signal-to-noise ratio falls, that of dreg does not."""

    def ratio(name, particles):
        elbo = built(name, num_particles=particles, vectorize_particles=True)
        found = gradients(elbo, normal_model, normal_guide, 2)[1]["loc1"]
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


def test_a_baseline_of_the_guide_that_would_be_ignored_is_an_error():
    with pytest.raises(sweepvi.ConfigError, match=r"baselines .infer. at k, which only estimator=trace_graph uses"):
        sweepvi.fit(mixed, guide=mixed_guide(), steps=3)
    infer = {"baseline": {"use_decaying_avg_baseline": True}}
    with pytest.raises(sweepvi.ConfigError, match=r"infer baseline of w: w .Normal. is differentiated"):
        sweepvi.fit(mixed, guide=mixed_guide(infer), estimator="trace_graph", steps=3)
