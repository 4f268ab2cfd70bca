"""The decaying average of a site's costs: how it decays, what it is compared with Pyro's, where it is kept."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceGraph_ELBO

import sweepvi
from sweepvi import registry
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX


def estimator(name, **settings):
    return registry.build("estimator", {"name": name, **settings})


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
