"""Every gradient estimator, held to the same contract. A new estimator adds a row to ``ESTIMATORS``.

Gradients are compared with exact ones on problems of ``LANES`` independent copies, each with parameters of its own:
one call then yields ``LANES`` independent estimates.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceGraph_ELBO

import sweepvi
from sweepvi import registry
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX

# name, the baselines that it supports, as a guide's site asks for them
ESTIMATORS = {
    "trace": {"no_baseline": {}},
    "stl": {"no_baseline": {}},
    "rloo": {"no_baseline": {}},
    "trace_graph": {
        "no_baseline": {},
        "decaying": {"use_decaying_avg_baseline": True},
        "decaying_own_beta": {"use_decaying_avg_baseline": True, "baseline_beta": 0.3},
        "value": {"baseline_value": torch.tensor(-2.0)},
    },
}
WITH_BASELINES = [(name, kind) for name, kinds in ESTIMATORS.items() for kind in kinds]
LANES = 8000
PRECISION = 0.006  # of the standard error, relative to the exact gradient: an error of 5 % is eight of them


def estimator(name, **settings):
    return registry.build("estimator", {"name": name, **settings})


@dataclass
class Case:
    """A problem of which the gradient of -ELBO is known."""

    start: dict[str, float]
    exact: dict[str, float]
    baseline: dict = field(default_factory=dict)

    def params(self):
        return {name: pyro.param(name, torch.full((LANES,), value)) for name, value in self.start.items()}


class Conjugate(Case):
    """z ~ N(0, 2), x ~ N(z, 1), with a normal guide: -ELBO is a polynomial and a logarithm."""

    DATA = (1.0, 2.5, 0.5)

    def __init__(self):
        loc, scale = 0.3, math.exp(0.3)
        precision = 1 / 2.0**2 + len(self.DATA)
        super().__init__(
            start={"loc": loc, "log_scale": math.log(scale)},
            exact={"loc": precision * loc - sum(self.DATA), "log_scale": precision * scale**2 - 1},
        )

    def model(self):
        with pyro.plate("lanes", LANES):
            z = pyro.sample("z", dist.Normal(0.0, 2.0))
            for place, x in enumerate(self.DATA):
                pyro.sample(f"x{place}", dist.Normal(z, 1.0), obs=torch.tensor(x))

    def guide(self):
        params = self.params()
        with pyro.plate("lanes", LANES):
            pyro.sample("z", dist.Normal(params["loc"], params["log_scale"].exp()))


class Discrete(Case):
    """Two Bernoulli variables, the second depending on the first in model and guide: four states to enumerate."""

    def __init__(self, baseline=None):
        start = {"logit_a": -1.0, "logit_b0": -0.6, "logit_b1": -0.2}
        leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in start.items()}
        self.negative_elbo(**leaves).backward()
        super().__init__(start, {name: leaf.grad.item() for name, leaf in leaves.items()}, baseline or {})

    @staticmethod
    def negative_elbo(logit_a, logit_b0, logit_b1):
        total = torch.zeros((), dtype=torch.float64)
        for first, second in itertools.product((0, 1), repeat=2):
            q_first, q_second = torch.sigmoid(logit_a), torch.sigmoid(logit_b1 if first else logit_b0)
            q = (q_first if first else 1 - q_first) * (q_second if second else 1 - q_second)
            p_second = 0.7 if first else 0.2
            p = (0.3 if first else 0.7) * (p_second if second else 1 - p_second)
            log_likelihood = -0.5 * (2.5 - first - 2 * second) ** 2 - 0.5 * math.log(2 * math.pi)
            total = total + q * (q.log() - math.log(p) - log_likelihood)
        return total

    def model(self):
        with pyro.plate("lanes", LANES):
            a = pyro.sample("a", dist.Bernoulli(0.3))
            b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            pyro.sample("y", dist.Normal(a + 2 * b, 1.0), obs=torch.tensor(2.5))

    def guide(self):
        params = self.params()
        infer = {"baseline": self.site_baseline(params)}
        with pyro.plate("lanes", LANES):
            a = pyro.sample("a", dist.Bernoulli(logits=params["logit_a"]), infer=infer)
            pyro.sample("b", dist.Bernoulli(logits=a * params["logit_b1"] + (1 - a) * params["logit_b0"]), infer=infer)

    def site_baseline(self, params):
        del params
        value = self.baseline.get("baseline_value")
        return self.baseline if value is None else {"baseline_value": value.expand(LANES)}


class Leaky(Discrete):
    """A baseline through which gradient flows into the guide's parameters."""

    def site_baseline(self, params):
        return {"baseline_value": params["logit_a"]}


class Scaled:
    """A wrong estimator: its gradient is 1.1 times too large."""

    def __init__(self, elbo):
        self.elbo = elbo

    def loss_and_grads(self, model, guide):
        loss = self.elbo.loss_and_grads(model, guide)
        for name in list(pyro.get_param_store()):
            param = pyro.param(name)
            if param.grad is not None:
                param.grad *= 1.1
        return loss


def gradients(elbo, case, calls=50):
    """Estimates of the gradient by parameter: float64, shape [calls, LANES]."""
    draws = {name: [] for name in case.start}
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        for _ in range(calls):
            elbo.loss_and_grads(case.model, case.guide)
            for name, grads in draws.items():
                grads.append(pyro.param(name).grad.double())
                pyro.param(name).grad = None
    return {name: torch.stack(grads) for name, grads in draws.items()}


def assert_unbiased(draws, exact):
    for name, grads in draws.items():
        # With a decaying baseline, estimates of one lane are martingale differences: uncorrelated, if not independent.
        standard_error = grads.std().item() / grads.numel() ** 0.5
        assert abs(grads.mean().item() - exact[name]) < 4 * standard_error, f"{name}: biased"
        assert standard_error < PRECISION * abs(exact[name]), f"{name}: too few draws to notice an error of 5 %"


def test_every_registered_estimator_has_a_row():
    bounds = {"iwae", "dreg", "vimco"}  # their rows are in test_multi_sample.py
    assert set(ESTIMATORS) | bounds == set(registry.names("estimator"))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_reparameterised_gradient_is_unbiased(name):
    case = Conjugate()
    assert_unbiased(gradients(estimator(name).build(), case), case.exact)


@pytest.mark.parametrize(("name", "kind"), WITH_BASELINES)
def test_score_function_gradient_is_unbiased(name, kind):
    case = Discrete(ESTIMATORS[name][kind])
    assert_unbiased(gradients(estimator(name).build(), case), case.exact)


@pytest.mark.parametrize("case", [Conjugate(), Discrete()], ids=["conjugate", "discrete"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_gradient_of_wrong_size_is_noticed(name, case):
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(gradients(Scaled(estimator(name).build()), case), case.exact)


@pytest.mark.parametrize("name", [name for name, kinds in ESTIMATORS.items() if "value" in kinds])
def test_a_baseline_that_leaks_gradient_is_noticed(name):
    case = Leaky()
    with pytest.raises(AssertionError, match="logit_a: biased"):
        assert_unbiased(gradients(estimator(name).build(), case), case.exact)


@pytest.mark.parametrize("name", [name for name, kinds in ESTIMATORS.items() if "decaying" in kinds])
def test_a_decaying_baseline_reduces_variance(name):
    plain, reduced = (
        gradients(estimator(name).build(), Discrete(ESTIMATORS[name][kind])) for kind in ("no_baseline", "decaying")
    )
    warm = 25
    for parameter in plain:
        assert reduced[parameter][warm:].var() < 0.9 * plain[parameter][warm:].var()


@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
@pytest.mark.parametrize("case", [Conjugate(), Discrete()], ids=["conjugate", "discrete"])
@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "rloo"])  # with one, it has no baseline
def test_particles_divide_the_variance(name, case, vectorize):
    one = gradients(estimator(name).build(), case, calls=10)
    four = gradients(estimator(name, num_particles=4, vectorize_particles=vectorize).build(), case, calls=10)
    for parameter in one:
        assert (four[parameter].var() / one[parameter].var()).item() == pytest.approx(1 / 4, rel=0.1)


@pytest.mark.parametrize(("name", "kind"), WITH_BASELINES)
def test_vectorized_particles_are_unbiased(name, kind):
    """Score functions that are summed over particles before they meet their costs would show here."""
    for case in [Conjugate(), Discrete(ESTIMATORS[name][kind])]:
        if "baseline_value" in case.baseline:
            continue  # the guide's own value has no dimension for particles
        elbo = estimator(name, num_particles=5, vectorize_particles=True).build()
        assert_unbiased(gradients(elbo, case, calls=20), case.exact)


@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_loss_is_an_estimate_of_the_same_negative_elbo(name, vectorize):
    case = Discrete()
    elbo = estimator(name, num_particles=10, vectorize_particles=vectorize).build()
    exact = LANES * case.negative_elbo(**{key: torch.tensor(value).double() for key, value in case.start.items()})
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        losses = torch.tensor([elbo.loss(case.model, case.guide) for _ in range(10)]).double()
        losses_too = torch.tensor([elbo.loss_and_grads(case.model, case.guide) for _ in range(10)]).double()
    for values in (losses, losses_too):
        standard_error = values.std() / len(values) ** 0.5
        assert standard_error < PRECISION * exact
        assert abs(values.mean() - exact) < 4 * standard_error


@pytest.mark.parametrize("name", ESTIMATORS)
def test_build_returns_a_fresh_object(name):
    """Pyro's objects remember the first model they see: one that served two fits would fail the second."""
    component = estimator(name, num_particles=2, vectorize_particles=True)
    first, second = component.build(), component.build()
    assert first is not second
    gradients(first, Discrete(), calls=1)
    assert math.isfinite(first.max_plate_nesting)
    assert second.max_plate_nesting == math.inf
    assert (second.num_particles, second.vectorize_particles) == (2, True)


DECAYING = {"use_decaying_avg_baseline": True}


def coin(y):
    z = pyro.sample("z", dist.Bernoulli(0.4))
    plain = pyro.sample("plain", dist.Bernoulli(0.6))
    pyro.sample("y", dist.Normal(z + plain, 1.0), obs=y)


def coin_guide(baseline, plain_infer=None):
    """A site with a baseline, and one without, as a model's own author would write them."""

    def guide(y):
        del y
        logits = pyro.param("logits", torch.tensor([0.3, -0.2]))
        pyro.sample("z", dist.Bernoulli(logits=logits[0]), infer={"baseline": baseline})
        pyro.sample("plain", dist.Bernoulli(logits=logits[1]), infer=plain_infer)

    return guide


Y = torch.tensor(0.7)
AVERAGE = BASELINE_STATE_PREFIX + "z"


def after(elbo, guide, calls=1):
    """Loss, gradient and averages after some calls on one seed."""
    store = pyro.get_param_store()
    with store.scope():
        pyro.set_rng_seed(3)
        losses = [elbo.loss_and_grads(coin, guide, Y) for _ in range(calls)]
        averages = {name: store[name].item() for name in list(store) if name.startswith(BASELINE_STATE_PREFIX)}
        return losses, pyro.param("logits").grad.clone(), averages


def lone_coin(y):
    pyro.sample("y", dist.Normal(pyro.sample("z", dist.Bernoulli(0.4)), 1.0), obs=y)


def lone_guide(baseline):
    def guide(y):
        del y
        logit = pyro.param("logit", torch.tensor(0.3))
        pyro.sample("z", dist.Bernoulli(logits=logit), infer={"baseline": baseline})

    return guide


@pytest.mark.parametrize(("beta", "own"), [(0.0, {}), (0.5, {}), (0.9, {}), (0.9, {"baseline_beta": 0.3})])
def test_the_average_decays_by_its_beta(beta, own):
    """With one site, its cost is the whole ELBO; what the site itself says wins."""
    elbo = estimator("trace_graph", baseline_beta=beta).build()
    decay, average = own.get("baseline_beta", beta), torch.tensor(0.0)
    store = pyro.get_param_store()
    with store.scope():
        pyro.set_rng_seed(3)
        for _ in range(5):
            cost = -torch.tensor(elbo.loss_and_grads(lone_coin, lone_guide(DECAYING | own), Y))
            average = (1 - decay) * cost + decay * average
            assert store[AVERAGE].item() == average.item()


def test_betas_compare_exactly_on_one_seed():
    """The first average is (1 - beta) × cost, and the draws do not depend on beta."""
    averages = {
        beta: after(estimator("trace_graph", baseline_beta=beta).build(), coin_guide(DECAYING))[2][AVERAGE]
        for beta in (0.0, 0.5, 0.9)
    }
    cost = torch.tensor(averages[0.0])
    assert cost != 0
    assert averages[0.5] == ((1 - 0.5) * cost).item()
    assert averages[0.9] == ((1 - 0.9) * cost).item()


def test_the_default_beta_is_pyros():
    assert estimator("trace_graph").baseline_beta == 0.90
    guide = coin_guide(DECAYING)
    ours, pyros = (after(elbo, guide, 5) for elbo in (estimator("trace_graph").build(), TraceGraph_ELBO()))
    assert ours[0] == pyros[0]
    assert torch.equal(ours[1], pyros[1])
    assert ours[2] == pyros[2] != {}


def test_a_sites_own_beta_wins():
    own = coin_guide(DECAYING | {"baseline_beta": 0.3})
    ours, pyros = (
        after(elbo, own, 5) for elbo in (estimator("trace_graph", baseline_beta=0.7).build(), TraceGraph_ELBO())
    )
    assert ours[2] == pyros[2] != {}
    assert torch.equal(ours[1], pyros[1])


@pytest.mark.parametrize("plain_infer", [None, {}, {"baseline": {}}])
def test_a_site_without_baseline_gets_none(plain_infer):
    elbo = estimator("trace_graph", baseline_beta=0.5).build()
    assert set(after(elbo, coin_guide(DECAYING, plain_infer))[2]) == {AVERAGE}
    none = after(estimator("trace_graph", baseline_beta=0.5).build(), coin_guide({}, plain_infer), 3)
    pyros = after(TraceGraph_ELBO(), coin_guide({}, plain_infer), 3)
    assert none[2] == {}
    assert torch.equal(none[1], pyros[1])


def test_the_guides_own_options_are_left_as_they_are():
    baseline = dict(DECAYING)
    after(estimator("trace_graph", baseline_beta=0.5).build(), coin_guide(baseline), 2)
    assert baseline == DECAYING


PARTICLES = [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}]


def coin_fit(settings, steps=50, **more):
    node = {"name": "trace_graph", "baseline_beta": 0.8, **settings}
    return sweepvi.fit(coin, (Y,), guide=coin_guide(DECAYING), estimator=node, steps=steps, score_draws=10, **more)


@pytest.mark.parametrize("settings", PARTICLES, ids=["one", "loop", "vectorized"])
def test_an_average_is_no_parameter(settings):
    result = coin_fit(settings)
    assert result.status == "finished"
    assert set(result.params) == {"logits"}
    assert not [key for key in result.runnable.snapshot.get("slot")[0] if BASELINE_STATE_PREFIX in key]
    assert result.losses.isfinite().all()
    assert torch.isfinite(result.sample(3)["z"]).all()


def test_an_average_is_not_optimized():
    made = []

    def sgd(groups):
        made.append(torch.optim.SGD(groups, lr=0.01))
        return made[-1]

    coin_fit({}, steps=5, optimizer=sgd)
    (optimizer,) = made
    assert [param.shape for group in optimizer.param_groups for param in group["params"]] == [(2,)]


@pytest.mark.parametrize("settings", PARTICLES, ids=["one", "loop", "vectorized"])
def test_an_average_survives_resumption(tmp_path, settings):
    whole = coin_fit(settings)
    coin_fit(settings, 20, folder=tmp_path)
    resumed = coin_fit(settings, folder=tmp_path, resume=True)
    assert torch.equal(resumed.losses, whole.losses)
    assert torch.equal(resumed.params["logits"], whole.params["logits"])
    one, other = (result.runnable.snapshot.get("param")[0][AVERAGE] for result in (resumed, whole))
    assert one.tolist() == other.tolist()
    loaded = sweepvi.FitResult.load(tmp_path, coin, (Y,), guide=coin_guide(DECAYING))
    assert torch.equal(loaded.sample(5)["z"], whole.sample(5)["z"])


@pytest.mark.parametrize("step", [1, 4])
def test_an_infinite_cost_does_not_stay_in_an_average(step):
    """An overflow passes Pyro's validation and reaches the average, as a NaN in a model would not."""
    calls = {"count": -2}  # two evaluations come before step 1

    def model(y):
        calls["count"] += 1
        lone_coin(torch.full_like(y, 1e30) if calls["count"] == step else y)

    result = sweepvi.fit(
        model,
        (Y,),
        guide=lone_guide(DECAYING),
        estimator="trace_graph",
        on_nonfinite="skip",
        steps=30,
        score_draws=0,
    )
    assert result.skipped == [step]
    assert result.losses[step:].isfinite().all()
