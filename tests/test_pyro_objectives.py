"""Pyro's estimators of other objectives: renyi, reweighted_wake_sleep, tail_adaptive, mmd, energy_distance.

Compared with enumeration, closed forms, formulas written out by hand, and Pyro's own classes where these are right.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_problems import Bound, Conjugate, Discrete, Mixed
from pyro import infer, poutine
from pyro.contrib.gp import kernels as pyros
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch.distributions import Normal

import sweepvi
from sweepvi import registry
from sweepvi.estimators.kernels import Kernel
from sweepvi.estimators.tail_adaptive import tail_weights

LANES = 20_000
F64 = torch.float64
LOOPS = pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])


def built(name, **keys):
    return registry.build("estimator", {"name": name, **keys}).build()


def evaluated(elbo, model, guide, seed=0, *args, **kwargs):
    """The loss, and the gradient of every parameter, unconstrained."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(seed)
        found = elbo.loss_and_grads(model, guide, *args, **kwargs)
        params = {name: pyro.param(name).unconstrained() for name in pyro.get_param_store()}
        return found, {name: param.grad for name, param in params.items() if param.grad is not None}


def many(elbo, model, guide, calls):
    """Losses, and gradients by parameter: float64, [calls, ...]."""
    found = [evaluated(elbo, model, guide, seed) for seed in range(calls)]
    return [loss for loss, _ in found], {k: torch.stack([g[k].double() for _, g in found]) for k in found[0][1]}


def assert_mean(draws, exact, precision):
    """Within four standard errors, and those small enough to notice a wrong gradient."""
    for name, found in draws.items():
        error = found.std(0) / len(found) ** 0.5
        assert ((found.mean(0) - exact[name]).abs() < 4 * error).all(), name
        assert (4 * error).max() < precision * exact[name].abs().max(), f"{name}: too few draws"


def by_lane(problem, draws):
    """Gradients as [estimates, *shape of a parameter]."""
    shapes = {name: torch.tensor(value).shape for name, value in problem.start.items()}
    return {name: found.reshape(-1, *shapes[name]) for name, found in draws.items()}


# renyi


@LOOPS
@pytest.mark.parametrize(
    ("problem", "alpha"),
    [(Conjugate, 0.5), (Mixed, 2.0), (Discrete, 0.5), (Discrete, -1.0), (Discrete, 3.0), (Mixed, 0.5)],
)
def test_renyis_gradient_is_that_of_its_bound(problem, alpha, vectorize):
    problem = problem(LANES)
    elbo = built("renyi", alpha=alpha, num_particles=2, vectorize_particles=vectorize)
    losses, draws = many(elbo, problem.model, problem.guide, 10)
    loss, exact = problem.exact(Bound(2, alpha))
    assert sum(losses) / len(losses) / LANES == pytest.approx(loss, rel=0.01)
    assert_mean(by_lane(problem, draws), exact, 0.15)


@pytest.mark.parametrize("problem", [Discrete, Mixed])
def test_renyi_of_order_0_is_iwae(problem):
    problem = problem(50)
    ours, theirs = (evaluated(built(name, num_particles=5), problem.model, problem.guide) for name in ("renyi", "iwae"))
    assert ours[0] == theirs[0]
    assert all(torch.equal(gradient, theirs[1][name]) for name, gradient in ours[1].items())


@LOOPS
def test_renyi_is_pyros_where_that_is_right(vectorize):
    """Without minibatches, with draws that can be differentiated, and with one bound."""
    problem = Conjugate(1)
    keys = {"num_particles": 4, "vectorize_particles": vectorize}
    ours = evaluated(built("renyi", alpha=0.3, **keys), problem.model, problem.guide)
    theirs = evaluated(infer.RenyiELBO(alpha=0.3, **keys), problem.model, problem.guide)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert all(torch.allclose(gradient, theirs[1][name], rtol=1e-4) for name, gradient in ours[1].items())


def test_renyis_bound_of_a_minibatch_is_scaled():
    """With the posterior for a guide, all weights are the evidence, and so is the bound of any order."""

    def model(batch):
        with pyro.plate("rows", 6, subsample=torch.arange(batch)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

    def guide(batch):
        with pyro.plate("rows", 6, subsample=torch.arange(batch)):
            pyro.sample("z", dist.Normal(0.0, math.sqrt(0.5)))

    elbo = built("renyi", alpha=0.5, num_particles=3)
    assert elbo.loss(model, guide, 2) == pytest.approx(3 * math.log(4 * math.pi), rel=1e-5)


# reweighted_wake_sleep


def wake_loss(problem, particles):
    """The guide's loss in the wake phase by enumeration, and its gradient."""
    leaves = {name: torch.tensor(value, dtype=F64, requires_grad=True) for name, value in problem.start.items()}
    outcomes = problem.outcomes(leaves)
    each = torch.arange(len(outcomes.probability))
    tuples = torch.cartesian_prod(*[each] * particles)
    log_q = outcomes.probability.log()
    share = torch.softmax(outcomes.log_weight[tuples].detach(), -1)
    loss = -(outcomes.probability[tuples].prod(-1).detach() * (share * log_q[tuples]).sum(-1)).sum()
    loss.backward()
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@LOOPS
@pytest.mark.parametrize("particles", [2, 3])
def test_the_wake_phase_is_that_of_all_tuples_of_draws(particles, vectorize):
    problem = Discrete(LANES)
    elbo = built("reweighted_wake_sleep", num_particles=particles, vectorize_particles=vectorize)
    losses, draws = many(elbo, problem.model, problem.guide, 5)
    loss, bound = problem.exact(Bound(particles))
    assert sum(losses) / len(losses) / LANES == pytest.approx(loss, rel=0.01)
    assert_mean(by_lane(problem, draws), wake_loss(problem, particles) | {"prior": bound["prior"]}, 0.1)


P_X = (0.2, 0.9)  # of each z
START = {"prior": 0.4, "seen_0": -0.3, "seen_1": 0.8}
SEEN = 1.0


def amortised_model(x):
    prior = pyro.param("prior", torch.full((LANES,), START["prior"]))
    with pyro.plate("lanes", LANES):
        z = pyro.sample("z", dist.Bernoulli(logits=prior))
        pyro.sample("x", dist.Bernoulli(torch.tensor(P_X)[z.long()]), obs=x)


def amortised_guide(x, observations=None):
    x = x if observations is None else observations["x"]
    zero, one = (pyro.param(name, torch.full((LANES,), START[name])) for name in ("seen_0", "seen_1"))
    with pyro.plate("lanes", LANES):
        pyro.sample("z", dist.Bernoulli(logits=torch.where(x > 0.5, one, zero)))


def of_z(logit, z):
    return torch.sigmoid(logit) if z else torch.sigmoid(-logit)


def sleep_loss(leaves):
    """−E log q(z | x) over what the model makes up."""
    total = torch.zeros((), dtype=F64)
    for z in (0, 1):
        for x in (0, 1):
            p = of_z(leaves["prior"].detach(), z) * (P_X[z] if x else 1 - P_X[z])
            total = total - p * of_z(leaves[f"seen_{x}"], z).log()
    return total


def amortised_wake_loss(leaves):
    """Of two draws, with x = 1; log p is there for its own parameter, log q for the guide's."""
    total = torch.zeros((), dtype=F64)
    for pair in ((0, 0), (0, 1), (1, 0), (1, 1)):
        q = torch.stack([of_z(leaves["seen_1"], z) for z in pair])
        p = torch.stack([of_z(leaves["prior"], z) * P_X[z] for z in pair])
        share = (p / q / (p / q).sum()).detach()
        total = total - q.prod().detach() * ((share * q.log()).sum() + (p / q.detach()).mean().log())
    return total


def exact_wake_sleep(insomnia):
    gradients = {}
    for share, loss in ((insomnia, amortised_wake_loss), (1 - insomnia, sleep_loss)):
        leaves = {name: torch.tensor(value, dtype=F64, requires_grad=True) for name, value in START.items()}
        loss(leaves).backward()
        for name, leaf in leaves.items():
            weight = 1.0 if name == "prior" else share
            gradients[name] = gradients.get(name, 0.0) + (0.0 if leaf.grad is None else weight * leaf.grad.item())
    return gradients


@LOOPS
@pytest.mark.parametrize("asleep", [1, 3])
@pytest.mark.parametrize("insomnia", [0.0, 0.3, 1.0])
def test_phases_mix_as_insomnia_says(insomnia, asleep, vectorize):
    keys = {"num_particles": 2, "num_sleep_particles": asleep, "vectorize_particles": vectorize}
    elbo = built("reweighted_wake_sleep", insomnia=insomnia, **keys)
    found, exact = [], exact_wake_sleep(insomnia)
    for seed in range(4):
        found.append(evaluated(elbo, amortised_model, amortised_guide, seed, torch.tensor(SEEN).expand(LANES))[1])
    for name in START:
        rows = torch.cat([one[name].double() for one in found])
        error = rows.std().item() / len(rows) ** 0.5
        assert abs(rows.mean().item() - exact[name]) < 4 * error + 1e-7, name
        assert 4 * error <= 0.1 * abs(exact[name]), f"{name}: too few draws"


def test_a_model_without_parameters_need_not_be_awake():
    elbo = built("reweighted_wake_sleep", insomnia=0.0, model_has_params=False, num_particles=2)
    data = torch.tensor(SEEN).expand(LANES)
    loss, gradients = evaluated(elbo, amortised_model, amortised_guide, 0, data)
    leaves = {name: torch.tensor(value, dtype=F64) for name, value in START.items()}
    assert loss / LANES == pytest.approx(sleep_loss(leaves).item(), rel=0.02)
    assert "prior" not in gradients
    with pyro.get_param_store().scope():
        assert elbo.loss(amortised_model, amortised_guide, data) == pytest.approx(loss, rel=0.02)


def half_normal():
    z = pyro.sample("z", dist.HalfNormal(2.0))
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.5))


def test_no_gradient_goes_through_what_an_autoguide_computes():
    """The Jacobian of a constraint depends on the draw, not on parameters; Pyro's gradient has it in."""
    particles, scale = 4, 0.7
    start = infer.autoguide.init_to_value(values={"z": torch.tensor(1.2)})
    with pyro.get_param_store().scope():
        guide = AutoNormal(half_normal, init_scale=scale, init_loc_fn=start)
        guide()
        pyro.set_rng_seed(3)
        z = torch.stack([guide()["z"] for _ in range(particles)]).detach()
        pyro.set_rng_seed(3)
        built("reweighted_wake_sleep", num_particles=particles).loss_and_grads(half_normal, guide)
    loc = torch.tensor(math.log(1.2), requires_grad=True)
    log_q = Normal(loc, scale).log_prob(z.log()) - z.log()
    log_p = dist.HalfNormal(2.0).log_prob(z) + Normal(z, 1.0).log_prob(torch.tensor(1.5))
    (-(torch.softmax((log_p - log_q).detach(), 0) * log_q).sum()).backward()
    assert guide.locs.z.grad.item() == pytest.approx(loc.grad.item(), rel=1e-4)


def guide_with_help(observations=None):
    help_ = pyro.sample("help", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    pyro.sample("z", dist.LogNormal(help_, 1.0))


def plain_guide():
    pyro.sample("z", dist.LogNormal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def with_factor():
    z = pyro.sample("z", dist.HalfNormal(2.0))
    pyro.factor("wanted", -(z**2))


def seeing_guide(observations=None):
    pyro.sample("z", dist.LogNormal(pyro.param("loc", torch.tensor(0.0)), 1.0))


@pytest.mark.parametrize(
    ("model", "guide", "insomnia", "key", "parts"),
    [
        (half_normal, plain_guide, 0.5, "estimator.insomnia", ["observations=None", "insomnia=1"]),
        (half_normal, AutoNormal, 0.5, "estimator.insomnia", ["observations=None"]),
        (half_normal, guide_with_help, 0.5, "estimator.insomnia", ["help"]),
        (with_factor, seeing_guide, 0.5, "model", ["wanted", "pyro.factor"]),
        (half_normal, AutoDelta, 1.0, "estimator", ["z", "computes it from parameters"]),
    ],
)
def test_wake_sleep_says_before_the_first_step_what_it_cannot_fit(model, guide, insomnia, key, parts):
    estimator = {"name": "reweighted_wake_sleep", "insomnia": insomnia}
    with pytest.raises(sweepvi.ConfigError) as caught:
        sweepvi.fit(model, guide=guide, estimator=estimator, steps=3)
    [problem] = caught.value.problems
    assert problem.key == key
    assert all(part in problem.message for part in parts)


# tail_adaptive


def test_tail_weights_are_those_of_algorithm_1():
    weights = torch.tensor([1.0, 5.0, 2.0, 5.0, 0.1])
    by_hand = torch.tensor([5 / 4, 5 / 2, 5 / 3, 5 / 2, 5 / 5])
    assert torch.allclose(tail_weights(weights.log(), -1.0), by_hand / by_hand.sum())
    halves = by_hand.sqrt()
    both = tail_weights(torch.stack([weights.log(), -weights.log()], 1), -0.5)
    assert torch.allclose(both[:, 0], halves / halves.sum())
    reverse = torch.tensor([5 / 2, 5 / 5, 5 / 3, 5 / 5, 5 / 1]).sqrt()
    assert torch.allclose(both[:, 1], reverse / reverse.sum())


def normal_model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(1.0))


def normal_guide():
    loc, log_scale = pyro.param("loc", torch.tensor(0.2)), pyro.param("log_scale", torch.tensor(-0.1))
    pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def noise_of(guide, particles, vectorize):
    """What the guide draws from the first seed, in standard deviations."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        if vectorize:
            z = poutine.trace(pyro.plate("particles", particles)(guide)).get_trace().nodes["z"]["value"]
        else:
            z = torch.stack([poutine.trace(guide).get_trace().nodes["z"]["value"] for _ in range(particles)])
        return (z.detach() - 0.2) / math.exp(-0.1)


@LOOPS
def test_tail_adaptive_follows_the_path_of_each_draw_by_its_weight(vectorize):
    particles = 6
    keys = {"num_particles": particles, "vectorize_particles": vectorize, "max_plate_nesting": 0}
    elbo = built("tail_adaptive", tail_adaptive_beta=-0.7, **keys)
    loss, gradients = evaluated(elbo, normal_model, normal_guide)
    loc, log_scale = torch.tensor(0.2, requires_grad=True), torch.tensor(-0.1, requires_grad=True)
    z = loc + log_scale.exp() * noise_of(normal_guide, particles, vectorize)
    log_p = Normal(0.0, 1.0).log_prob(z) + Normal(z, 0.5).log_prob(torch.tensor(1.0))
    log_w = log_p - Normal(loc.detach(), log_scale.detach().exp()).log_prob(z)
    tail = torch.empty(particles)
    tail[log_w.detach().argsort(descending=True)] = torch.arange(1, particles + 1) / particles
    gamma = tail**-0.7
    (-(gamma * log_w).sum() / gamma.sum()).backward()
    assert gradients["loc"].item() == pytest.approx(loc.grad.item(), rel=1e-4)
    assert gradients["log_scale"].item() == pytest.approx(log_scale.grad.item(), rel=1e-4)
    assert loss == pytest.approx(-log_w.mean().item(), rel=1e-5)


def test_tail_adaptive_is_without_noise_at_the_posterior():
    def at_posterior():
        loc = pyro.param("loc", torch.tensor(0.8, dtype=F64))
        log_scale = pyro.param("log_scale", torch.tensor(0.5 * math.log(0.2), dtype=F64))
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    _, draws = many(built("tail_adaptive", num_particles=4), normal_model, at_posterior, 5)
    assert max(found.abs().max().item() for found in draws.values()) < 1e-6


def test_tail_adaptive_fits_a_normal():
    result = sweepvi.fit(
        normal_model,
        guide=normal_guide,
        estimator={"name": "tail_adaptive", "num_particles": 16, "vectorize_particles": True},
        optimizer={"name": "adam", "lr": 0.05},
        steps=300,
    )
    with result.fitted():
        assert pyro.param("loc").item() == pytest.approx(0.8, abs=1e-3)
        assert pyro.param("log_scale").exp().item() == pytest.approx(math.sqrt(0.2), abs=1e-3)


# mmd


PYROS = {
    "rbf": pyros.RBF,
    "rational_quadratic": pyros.RationalQuadratic,
    "exponential": pyros.Exponential,
    "matern32": pyros.Matern32,
    "matern52": pyros.Matern52,
    "cosine": pyros.Cosine,
    "periodic": pyros.Periodic,
    "linear": pyros.Linear,
    "polynomial": pyros.Polynomial,
}
EXTRA = {"rational_quadratic": {"scale_mixture": 1.7}, "periodic": {"period": 2.5}, "polynomial": {"bias": 0.6}}


@pytest.mark.parametrize("kind", PYROS)
def test_kernels_are_pyros(kind):
    keys = {"variance": 1.4, **EXTRA.get(kind, {})}
    if kind not in ("linear", "polynomial"):
        keys["lengthscale"] = 0.8
    theirs = {name: torch.tensor(value) for name, value in keys.items()}
    degree = {"degree": 3} if kind == "polynomial" else {}
    pyro.set_rng_seed(0)
    x, z = torch.randn(5, 3), torch.randn(4, 3)
    with pyro.get_param_store().scope():
        expected = PYROS[kind](3, **theirs, **degree)(x, z)
    assert torch.allclose(Kernel(kind=kind, **keys, **degree)(x, z), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", PYROS)
def test_a_kernel_of_a_draw_and_itself_can_be_differentiated(kind):
    x = torch.randn(3, 2, requires_grad=True)
    Kernel(kind=kind)(x, x).sum().backward()
    assert x.grad.isfinite().all()


def pair_model():
    with pyro.plate("one", 1):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    two = pyro.plate("two", 2)
    with two:
        z = pyro.sample("z", dist.Normal(pyro.param("prior", torch.tensor(0.3)), 1.0))
    with two:
        pyro.sample("x", dist.Normal(z + w.sum(-1), 0.5), obs=torch.tensor([1.0, -0.4]))


def pair_guide():
    loc = pyro.param("loc", torch.tensor([0.2, 0.7]))
    with pyro.plate("two", 2):
        pyro.sample("z", dist.Normal(loc, 0.6))
    with pyro.plate("one", 1):
        pyro.sample("w", dist.Normal(pyro.param("loc_w", torch.tensor([0.1, 0.0, -0.5])), 0.8).to_event(1))


@LOOPS
def test_mmd_is_pyros_on_the_same_draws(vectorize):
    kernel = {"z": pyros.RBF(2, lengthscale=torch.tensor(1.0)), "w": pyros.RBF(3, lengthscale=torch.tensor(1.0))}
    theirs = infer.Trace_MMD(
        kernel=kernel, mmd_scale={"z": 3.0, "w": 0.5}, num_particles=6, vectorize_particles=vectorize
    )
    ours = built("mmd", num_particles=6, vectorize_particles=vectorize, mmd_scale=0.5, mmd_scales={"z*": 3.0})
    (loss, gradients), (expected, exact) = (evaluated(elbo, pair_model, pair_guide) for elbo in (ours, theirs))
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, exact[name], rtol=1e-4, atol=1e-6), name
    assert set(gradients) == {"prior", "loc", "loc_w"}


def test_mmd_by_hand():
    elbo = built("mmd", num_particles=2, kernels={"z*": {"kind": "exponential", "lengthscale": 2.0}}, mmd_scale=5.0)
    loss, _ = evaluated(elbo, normal_model, normal_guide)
    pyro.set_rng_seed(0)
    q1, p1, q2, p2 = (scale * torch.randn(()) + loc for loc, scale in ((0.2, math.exp(-0.1)), (0.0, 1.0)) * 2)

    def k(one, other):
        return math.exp(-abs(one - other) / 2.0)

    likelihood = sum(Normal(q, 0.5).log_prob(torch.tensor(1.0)).item() for q in (q1, q2)) / 2
    mmd = (1 + k(q1, q2)) / 2 + (1 + k(p1, p2)) / 2
    mmd -= 2 * (k(q1, p1) + k(q1, p2) + k(q2, p1) + k(q2, p2)) / 4
    assert loss == pytest.approx(-likelihood + 5.0 * mmd, rel=1e-5)


def test_mmd_compares_draws_of_one_minibatch():
    """A prior that knows its rows: draws of other rows would be far away from those of the guide."""

    def prior():
        with pyro.plate("rows", 1000, subsample_size=2) as rows:
            pyro.sample("z", dist.Normal(100.0 * rows, 1e-3))

    elbo = built("mmd", num_particles=2)
    for _ in range(5):
        assert abs(elbo.loss(prior, prior)) < 1e-2


# energy_distance


def energy_guide():
    loc, log_scale = pyro.param("loc", torch.tensor(0.2)), pyro.param("log_scale", torch.tensor(0.8))
    pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def energy_model():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 0.5), obs=torch.tensor(3.0))


def exact_energy(prior_scale):
    """X is normal: Gneiting & Raftery 2007, equation 21, and the prior's mean log density."""
    loc, log_scale = (torch.tensor(value, dtype=F64, requires_grad=True) for value in (0.2, 0.8))
    spread = (log_scale.mul(2).exp() + 0.5**2).sqrt()
    away = (3.0 - loc) / spread
    standard = Normal(torch.tensor(0.0, dtype=F64), 1.0)
    energy = spread * (away * (2 * standard.cdf(away) - 1) + 2 * standard.log_prob(away).exp() - 1 / math.sqrt(math.pi))
    log_prior = -0.5 * (loc**2 + log_scale.mul(2).exp()) - 0.5 * math.log(2 * math.pi)
    loss = energy - prior_scale * log_prior
    loss.backward()
    return loss.item(), {"loc": loc.grad, "log_scale": log_scale.grad}


@LOOPS
@pytest.mark.parametrize("prior_scale", [0.0, 0.4])
def test_the_energy_distance_of_a_normal(prior_scale, vectorize):
    particles = 300 if vectorize else 30
    keys = {"num_particles": particles, "vectorize_particles": vectorize}
    elbo = built("energy_distance", prior_scale=prior_scale, **keys)
    losses, draws = many(elbo, energy_model, energy_guide, 60)
    loss, exact = exact_energy(prior_scale)
    error = torch.tensor(losses).std().item() / len(losses) ** 0.5
    assert abs(sum(losses) / len(losses) - loss) < 4 * error < 0.2 * loss
    assert_mean(draws, exact, precision=0.4)


def plated_model(scale=1.0, mask=None):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 3), poutine.scale(scale=scale), poutine.mask(mask=True if mask is None else mask):
        loc = torch.stack([z, 2 * z], -1)
        pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=torch.tensor([[1.0, 2.0], [0.5, 0.0], [-1.0, 0.3]]))
    pyro.sample("y", dist.Normal(z, 0.3), obs=torch.tensor(0.4))


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("mask", [None, torch.tensor([True, False, True])], ids=["all", "masked"])
def test_the_energy_distance_is_pyros_on_the_same_draws(beta, mask):
    """Pyro adds up the prior's log density over particles."""

    def model():
        plated_model(scale=2.5, mask=mask)

    theirs = infer.EnergyDistance(beta=beta, prior_scale=0.6 / 4, num_particles=4)
    ours = built("energy_distance", beta=beta, prior_scale=0.6, num_particles=4, vectorize_particles=True)
    loss, gradients = evaluated(ours, model, energy_guide)
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        expected = theirs(model, energy_guide)
        expected.backward()
        exact = {name: pyro.param(name).grad for name in gradients}
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert all(torch.allclose(gradient, exact[name], rtol=1e-4) for name, gradient in gradients.items())


@LOOPS
def test_the_energy_distance_compares_draws_of_one_minibatch(vectorize):
    def model():
        with pyro.plate("rows", 1000, subsample_size=2) as rows:
            centre = pyro.deterministic("centre", 100.0 * rows)
            pyro.sample("x", dist.Normal(centre, 1e-3), obs=100.0 * rows)

    elbo = built("energy_distance", num_particles=3, vectorize_particles=vectorize)
    for _ in range(5):
        assert abs(elbo.loss(model, lambda: None)) < 1.0


def counts():
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Poisson(z.exp()), obs=torch.tensor(2.0))


def unseen():
    pyro.sample("z", dist.Normal(0.0, 1.0))


def discrete_guide():
    pyro.sample("z", dist.Bernoulli(logits=pyro.param("loc", torch.tensor(0.0))))


def angle():
    pyro.sample("z", dist.VonMises(0.0, 1.0))
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))


def line_guide():
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.1))


@pytest.mark.parametrize(
    ("estimator", "model", "guide", "key", "parts"),
    [
        ({"name": "energy_distance"}, counts, normal_guide, "estimator", ["x (Poisson)", "likelihood"]),
        ({"name": "energy_distance"}, unseen, normal_guide, "model", ["no site with data"]),
        ({"name": "energy_distance"}, unseen, discrete_guide, "estimator", ["z (Bernoulli)"]),
        ({"name": "tail_adaptive"}, unseen, discrete_guide, "estimator", ["z (Bernoulli)"]),
        ({"name": "mmd"}, angle, line_guide, "estimator", ["z", "a model whose draws can be differentiated"]),
        ({"name": "mmd", "mmd_scales": {"zz": 1.0}}, unseen, normal_guide, "estimator.mmd_scales.zz", ["z"]),
        ({"name": "mmd", "kernels": {"zz": "rbf"}}, unseen, normal_guide, "estimator.kernels.zz", ["valid: z"]),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(estimator, model, guide, key, parts):
    with pytest.raises(sweepvi.ConfigError) as caught:
        sweepvi.fit(model, guide=guide, estimator=estimator, steps=3)
    [problem] = caught.value.problems
    assert problem.key == key
    assert all(part in problem.message for part in parts)


@pytest.mark.parametrize(
    ("name", "keys", "parts"),
    [
        ("renyi", {"alpha": 1}, ["estimator.alpha = 1", "trace"]),
        ("renyi", {"alpha": math.inf}, ["estimator.alpha = inf", "a number"]),
        ("reweighted_wake_sleep", {"insomnia": 1.5}, ["estimator.insomnia = 1.5", ">= 0 and <= 1"]),
        ("reweighted_wake_sleep", {"num_sleep_particles": 0}, ["estimator.num_sleep_particles = 0", ">= 1"]),
        ("tail_adaptive", {"tail_adaptive_beta": 0}, ["estimator.tail_adaptive_beta = 0", ">= -1 and < 0"]),
        ("tail_adaptive", {"tail_adaptive_beta": -2}, ["estimator.tail_adaptive_beta = -2"]),
        ("mmd", {"kernel": "rbg"}, ["estimator.kernel = 'rbg'", "rbf, rational_quadratic, exponential, matern32"]),
        ("mmd", {"kernel": {"kind": "rbf", "lengthscale": 0}}, ["estimator.kernel.lengthscale = 0", "> 0"]),
        ("mmd", {"kernel": {"kind": "rbf", "degree": 2}}, ["estimator.kernel.degree = 2", "not used by kind=rbf"]),
        ("mmd", {"mmd_scale": -1}, ["estimator.mmd_scale = -1", ">= 0"]),
        ("mmd", {"mmd_scales": {"z": -1}}, ["estimator.mmd_scales"]),
        ("energy_distance", {"beta": 0}, ["estimator.beta = 0", "> 0 and < 2"]),
        ("energy_distance", {"beta": 2}, ["estimator.beta = 2"]),
        ("energy_distance", {"prior_scale": -0.1}, ["estimator.prior_scale = -0.1", ">= 0"]),
        *(
            (name, {"num_particles": 1}, ["estimator.num_particles = 1", ">= 2"])
            for name in ("renyi", "reweighted_wake_sleep", "tail_adaptive", "mmd", "energy_distance")
        ),
        ("trace", {"baselines": {"z": "decaying"}}, ["estimator.baselines", "no such key", "a key of trace_graph"]),
        ("jit_trace", {}, ["estimator.name = 'jit_trace'", "refused", "first run", "use trace"]),
        ("JitTraceGraph_ELBO", {}, ["refused", "use trace_graph"]),
        ("jit_trace_enum", {}, ["refused", "use trace_enum"]),
        ("jit_trace_mean_field", {}, ["refused", "use trace_mean_field"]),
    ],
)
def test_bad_keys_are_one_message(name, keys, parts):
    [problem] = registry.check("estimator", {"name": name, **keys})
    assert all(part in str(problem) for part in parts)


def test_another_order_is_another_objective():
    halves, ones = (registry.build("estimator", {"name": "renyi", "alpha": alpha}) for alpha in (0.5, 0.25))
    assert halves.minimised == "-Rényi bound (alpha=0.5)"
    assert halves.minimised != ones.minimised
    assert registry.build("estimator", {"name": "trace"}).minimised == "-ELBO"
