"""``trace_tmc``: its mean weight is the evidence, its gradient that of its bound, and Pyro's values where Pyro is."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_problems import F64, normal_nodes
from pyro.infer import TraceTMC_ELBO, config_enumerate

import sweepvi
from sweepvi import registry

STRATEGIES = [{"tmc": "diagonal"}, {"tmc": "mixture"}, {"expand": True}]
CALLS = 400


def estimator(**keys):
    return registry.build("estimator", {"name": "trace_tmc", **keys})


def evaluated(elbo, model, guide, seed=0):
    """Loss, and gradients by parameter, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(F64)
    try:
        with pyro.get_param_store().scope():
            pyro.set_rng_seed(seed)
            loss = elbo.loss_and_grads(model, guide)
            return loss, {name: param.grad for name, param in pyro.get_param_store().named_parameters()}
    finally:
        torch.set_default_dtype(before)


def weights(elbo, model, guide, calls=CALLS):
    """Estimates of the evidence: shape [calls]."""
    with torch.no_grad(), pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        return torch.tensor([-elbo.loss(model, guide) for _ in range(calls)], dtype=F64).exp()


def far_off(estimates, exact):
    """How many standard errors the mean is from the exact value."""
    return float((estimates.mean() - exact).abs() / estimates.std()) * len(estimates) ** 0.5


def three():
    """Evidence of (x, y): normal, of mean 0; with c and b given a, x = a + b + noise and y = c - b + noise."""
    loc = pyro.param("loc", torch.tensor(0.0))
    a = pyro.sample("a", dist.Normal(loc, 1.0))
    c = pyro.sample("c", dist.Normal(a, 1.0))
    b = pyro.sample("b", dist.Normal(a, 1.0))
    pyro.sample("x", dist.Normal(a + b, 1.0), obs=torch.tensor(1.5))
    pyro.sample("y", dist.Normal(c - b, 1.0), obs=torch.tensor(0.5))


def each_given_the_others():
    slope, log_scale = pyro.param("slope", torch.tensor(0.9)), pyro.param("log_scale", torch.tensor(0.1))
    a = pyro.sample("a", dist.Normal(0.3, log_scale.exp()))
    c = pyro.sample("c", dist.Normal(slope * a, 1.0))
    pyro.sample("b", dist.Normal(0.9 + slope * a + 0.1 * c, 1.0))


def independent():
    slope, log_scale = pyro.param("slope", torch.tensor(0.9)), pyro.param("log_scale", torch.tensor(0.1))
    pyro.sample("a", dist.Normal(0.3, log_scale.exp()))
    pyro.sample("c", dist.Normal(slope, 1.0))
    pyro.sample("b", dist.Normal(slope * 0.5, 1.0))


COVARIANCE = torch.tensor([[6.0, -1.0], [-1.0, 3.0]], dtype=F64)
EVIDENCE = dist.MultivariateNormal(torch.zeros(2, dtype=F64), COVARIANCE).log_prob(torch.tensor([1.5, 0.5]).double())


@pytest.mark.parametrize("keys", STRATEGIES, ids=str)
def test_the_mean_weight_is_the_evidence(keys):
    """Draws of c, and of a and c together, are what draws of b are made for."""
    found = weights(estimator(num_samples=4, max_plate_nesting=0, **keys).build(), three, each_given_the_others)
    assert (
        found.std() / CALLS**0.5 < 0.04 * EVIDENCE.exp()
    )  # of combinations as Pyro weighs them, the mean is 19 % more
    assert far_off(found, EVIDENCE.exp()) < 4


def density(value, loc):
    return dist.Normal(loc, 1.0).log_prob(value).exp()


@pytest.mark.parametrize("tmc", ["diagonal", "mixture"])
def test_combinations_are_weighed_by_the_mixtures_that_draws_come_from(tmc):
    """All 27 weights by hand, of the draws of one call; those of b are for pairs of draws of a and c."""
    draws = {}

    def guide():
        a = draws["a"] = pyro.sample("a", dist.Normal(0.3, 1.0))
        c = draws["c"] = pyro.sample("c", dist.Normal(0.9 * a, 1.0))
        draws["b"] = pyro.sample("b", dist.Normal(a - c, 1.0))

    (found,) = weights(estimator(num_samples=3, tmc=tmc, max_plate_nesting=0).build(), three, guide, calls=1)
    a, b, c = (draws[name].double().flatten() for name in "abc")
    pairs = [(i, j) for i in range(3) for j in range(3) if tmc == "mixture" or i == j]
    total = 0.0
    for i, j, k in itertools.product(range(3), repeat=3):
        joint = density(a[i], 0.0) * density(c[j], a[i]) * density(b[k], a[i])
        joint *= density(torch.tensor(1.5), a[i] + b[k]) * density(torch.tensor(0.5), c[j] - b[k])
        proposal = density(a[i], 0.3) * sum(density(c[j], 0.9 * other) for other in a) / 3
        proposal *= sum(density(b[k], a[one] - c[other]) for one, other in pairs) / len(pairs)
        total += float(joint / proposal) / 27
    assert float(found) == pytest.approx(total, rel=1e-4)


PARTICLES = [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}]


@pytest.mark.parametrize("particles", PARTICLES, ids=str)
@pytest.mark.parametrize("keys", STRATEGIES, ids=str)
def test_has_pyros_values_on_the_same_draws_where_draws_do_not_depend_on_others(keys, particles):
    particles = particles | {"max_plate_nesting": 0}
    loss, grads = evaluated(estimator(num_samples=4, **keys, **particles).build(), three, independent)
    guide = config_enumerate(independent, num_samples=4, **keys)
    pyros, pyros_grads = evaluated(TraceTMC_ELBO(**particles), three, guide)
    assert loss == pytest.approx(pyros)
    for name, grad in pyros_grads.items():
        torch.testing.assert_close(grads[name], grad)


@pytest.mark.parametrize("name", ["loc", "slope", "log_scale"])
@pytest.mark.parametrize("keys", STRATEGIES, ids=str)
def test_the_gradient_is_that_of_the_bound(keys, name):
    """A difference quotient on the same noise: draws are differentiable functions of it."""
    elbo = estimator(num_samples=4, num_particles=2, max_plate_nesting=0, **keys).build()
    start = {"loc": 0.0, "slope": 0.9, "log_scale": 0.1}

    def loss_at(value):
        def guide():
            for key, default in start.items():
                pyro.param(key, torch.tensor(value if key == name else default, dtype=F64))
            each_given_the_others()

        return evaluated(elbo, three, guide)

    step = 1e-5
    quotient = (loss_at(start[name] + step)[0] - loss_at(start[name] - step)[0]) / (2 * step)
    assert abs(quotient) > 1e-3
    assert float(loss_at(start[name])[1][name]) == pytest.approx(quotient, rel=1e-5)


def test_of_one_variable_it_is_the_importance_weighted_bound():
    """E log (mean of two weights), by quadrature; one bound for each entry of the plate."""
    lanes = 40_000

    def model():
        with pyro.plate("lanes", lanes):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.5))

    def guide():
        with pyro.plate("lanes", lanes):
            pyro.sample("z", dist.Normal(0.3, 1.4))

    (probability, noise) = normal_nodes(2, 30)
    z = 0.3 + 1.4 * torch.stack(noise)
    log_weight = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(torch.tensor(1.5))
    log_weight -= dist.Normal(0.3, 1.4).log_prob(z)
    exact = float((probability * (log_weight.logsumexp(0) - math.log(2))).sum())
    with torch.no_grad():
        pyro.set_rng_seed(0)
        loss = estimator(num_samples=2, max_plate_nesting=1).build().loss(model, guide) / lanes
    assert loss == pytest.approx(-exact, abs=0.005)


@pytest.mark.parametrize("guide", ["auto_normal", "auto_multivariate_normal"])
def test_an_autoguide_draws_often_and_places_each_draw(guide):
    """A Gamma variable is placed by a delta; the bound is that of ``iwae`` with as many draws."""

    def model():
        pyro.sample("rate", dist.Gamma(2.0, 1.0))

    def mean_loss(keys):
        options = {"optimizer": {"name": "sgd", "lr": 1e-9}, "steps": 200, "score_draws": 0}
        losses = sweepvi.fit(model, guide=guide, estimator=keys, **options).losses
        return losses.mean(), losses.std() / len(losses) ** 0.5

    (ours, error), (iwae, its) = (
        mean_loss(keys) for keys in ({"name": "trace_tmc", "num_samples": 3}, {"name": "iwae", "num_particles": 3})
    )
    assert abs(ours - iwae) < 4 * (error**2 + its**2) ** 0.5
    assert error < 0.08


P, Q = torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[0.95, 0.05], [0.1, 0.9]], dtype=F64)


def two_discrete():
    """The observation depends on both, the second on the first."""
    first = pyro.sample("first", dist.Categorical(pyro.param("p", lambda: P.clone())))
    second = pyro.sample("second", dist.Categorical(Q[first]))
    pyro.sample("x", dist.Normal(2.0 * (first == second).to(P), 0.5), obs=torch.tensor(2.0).to(P))


def nothing():
    pass


EXACT = sum(
    P[a] * Q[a, b] * dist.Normal(2.0 * (a == b), 0.5).log_prob(torch.tensor(2.0)).exp()
    for a, b in itertools.product((0, 1), repeat=2)
)


@pytest.mark.parametrize("keys", STRATEGIES, ids=str)
def test_the_mean_weight_of_draws_from_the_prior_is_the_evidence(keys):
    component = estimator(num_samples=4, max_plate_nesting=0, **keys)
    found = weights(component.build(), component.configured(two_discrete), nothing)
    assert found.std() / CALLS**0.5 < 0.02 * EXACT  # of combinations as Pyro weighs them, the mean is a quarter less
    assert far_off(found, EXACT) < 4


def test_of_one_draw_from_the_prior_values_and_gradients_are_pyros():
    def one():
        z = pyro.sample("z", dist.Categorical(pyro.param("p", lambda: P.clone())))
        pyro.sample("x", dist.Normal(2.0 * z, pyro.param("s", torch.tensor(1.5))), obs=torch.tensor(2.0))

    component = estimator(num_samples=4, max_plate_nesting=0)
    loss, grads = evaluated(component.build(), component.configured(one), nothing)
    pyros, pyros_grads = evaluated(TraceTMC_ELBO(max_plate_nesting=0), config_enumerate(one, num_samples=4), nothing)
    assert loss == pytest.approx(pyros)
    for name, grad in pyros_grads.items():
        torch.testing.assert_close(grads[name], grad)


def test_a_sum_in_the_model_counts_its_prior_once():
    component = estimator(max_plate_nesting=0)
    loss, _ = evaluated(component.build(), component.configured(two_discrete), nothing)
    assert loss == pytest.approx(-math.log(EXACT), rel=1e-5)
    pyros, _ = evaluated(TraceTMC_ELBO(max_plate_nesting=0), config_enumerate(two_discrete), nothing)
    assert pyros != pytest.approx(loss, abs=0.1)
