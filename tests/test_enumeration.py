"""Models whose discrete variables are summed over: gradients, reported ELBO and draws against sums by hand."""

from __future__ import annotations

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_problems import F64, Discrete, Mixed, Summed
from torch.distributions import constraints

import sweepvi
from sweepvi import registry
from sweepvi.errors import ConfigError

X = torch.tensor([-2.1, -1.7, 0.2, 1.6, 2.4, 2.6], dtype=F64)
WEIGHTS = torch.tensor([0.3, 0.7], dtype=F64)


def estimator(name, **keys):
    return registry.build("estimator", {"name": name, **keys})


def evaluated(component, model, guide, seed=0):
    """Loss, and gradients by parameter; the model is as the estimator needs it."""
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(seed)
        loss = component.build().loss_and_grads(component.configured(model), guide)
        return loss, {name: param.grad for name, param in pyro.get_param_store().named_parameters()}


def fitted(model, **keys):
    """A short fit in float64."""
    options = {"estimator": "trace_enum", "steps": 20, "score_draws": 30, "dtype": "float64"}
    return sweepvi.fit(model, (X,), **(options | keys))


def means():
    return pyro.sample("m", dist.Normal(torch.tensor([-1.0, 1.0]).to(X), 2.0).to_event(1))


def mixture(x):
    """Two normal components, and which of them each observation is of."""
    m = means()
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(m[..., z], 1.0), obs=x)


def summed_by_hand(x):
    """The same model without its discrete variable."""
    m = means()
    with pyro.plate("data", len(x)):
        parts = dist.Normal(m.expand(len(x), 2), 1.0)
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(WEIGHTS.expand(len(x), 2)), parts), obs=x)


@pytest.mark.parametrize("guide", ["auto_normal", "auto_multivariate_normal"])
@pytest.mark.parametrize(
    "keys", [{}, {"expand": True}, {"num_particles": 2}, {"max_plate_nesting": 1}, {"name": "trace_tmc"}], ids=str
)
def test_a_fit_is_that_of_the_model_summed_by_hand(guide, keys):
    """Draw by draw: losses, parameters, and the ELBO of the first fresh draw."""
    ours = fitted(mixture, guide=guide, estimator={"name": "trace_enum"} | keys, score_draws=1)
    plain = {name: value for name, value in keys.items() if name in ("num_particles", "max_plate_nesting")}
    hand = fitted(summed_by_hand, guide=guide, estimator={"name": "trace"} | plain, score_draws=1)
    torch.testing.assert_close(ours.losses, hand.losses)
    assert ours.params.keys() == hand.params.keys()
    for name, value in hand.params.items():
        torch.testing.assert_close(ours.params[name], value)
    assert ours.elbo == pytest.approx(hand.elbo)


@pytest.mark.parametrize(
    "keys",
    [
        {"enumerate": "parallel"},
        {"enumerate": "parallel", "expand": True},
        {"enumerate": "parallel", "num_particles": 3},
        {"enumerate": "parallel", "num_particles": 3, "vectorize_particles": True},
        {"enumerate": "sequential"},
        {"enumerate": "sequential", "num_particles": 2},
    ],
    ids=str,
)
def test_a_gradient_is_exact_where_everything_is_summed_over(keys):
    """All in the guide, and one in the model alone (which is summed over in parallel)."""
    for problem in (Discrete(2), Summed(2)):
        if isinstance(problem, Summed) and keys["enumerate"] == "sequential":
            continue
        loss, gradient = problem.exact()
        for seed in range(2):
            ours, grads = evaluated(estimator("trace_enum", **keys), problem.model, problem.guide, seed)
            assert ours == pytest.approx(2 * loss, rel=1e-5)
            for name, value in gradient.items():
                torch.testing.assert_close(grads[name], value.float().expand_as(grads[name]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("vectorize", [False, True])
def test_what_is_not_summed_over_is_drawn(vectorize):
    """A normal variable before and after one that is summed over."""
    lanes = 40_000
    problem, (loss, gradient) = Mixed(lanes), Mixed().exact()
    component = estimator("trace_enum", num_particles=3, vectorize_particles=vectorize)
    ours, grads = evaluated(component, problem.model, problem.guide)
    assert ours / lanes == pytest.approx(loss, rel=0.02)
    for name, value in gradient.items():
        error = float(grads[name].std()) / lanes**0.5
        assert error < 0.01 * abs(float(value))
        assert abs(float(grads[name].mean() - value)) < 4 * error


def test_null_enumerates_only_what_asks_for_it():
    problem = Discrete(50_000)
    with pytest.raises(ConfigError, match="finds no latent variable that it is to enumerate"):
        sweepvi.fit(problem.model, guide=problem.guide, estimator={"name": "trace_enum", "enumerate": None}, steps=1)
    drawn, _ = evaluated(estimator("trace_enum", enumerate=None), problem.model, problem.guide)
    exact = problem.exact()[0]
    assert drawn / 50_000 != pytest.approx(exact, rel=1e-6)  # noise
    assert drawn / 50_000 == pytest.approx(exact, rel=0.02)


TRANSITION = ((0.9, 0.1), (0.3, 0.7))
SERIES = (0.3, -0.4, 1.9, 2.2, 0.1)


def chain(unused=None):
    """A hidden Markov model; of the first state, both values have the same weight."""
    del unused
    transition = pyro.param("transition", lambda: torch.tensor(TRANSITION), constraint=constraints.simplex)
    step = pyro.param("step", lambda: torch.tensor(2.0))
    state = pyro.sample("z0", dist.Categorical(torch.ones(2)))
    for t in pyro.markov(range(len(SERIES))):
        if t:
            state = pyro.sample(f"z{t}", dist.Categorical(transition[state]))
        pyro.sample(f"x{t}", dist.Normal(step * state, 1.0), obs=torch.tensor(SERIES[t]))


def no_guide(unused=None):
    del unused


def by_the_forward_algorithm(transition, step):
    likelihood = torch.stack([dist.Normal(step * state, 1.0).log_prob(torch.tensor(SERIES)) for state in (0, 1)], -1)
    alpha = likelihood[0] - math.log(2)
    for row in likelihood[1:]:
        alpha = (alpha[:, None] + transition.log()).logsumexp(0) + row
    return alpha.logsumexp(0)


@pytest.mark.parametrize("name", ["trace_enum", "trace_tmc"])
def test_a_hidden_markov_model_has_the_likelihood_of_the_forward_algorithm(name):
    transition, step = torch.tensor(TRANSITION), torch.tensor(2.0, requires_grad=True)
    exact = by_the_forward_algorithm(transition, step)
    (gradient,) = torch.autograd.grad(-exact, step)
    loss, grads = evaluated(estimator(name), chain, no_guide)
    assert loss == pytest.approx(-exact.item(), rel=1e-5)
    torch.testing.assert_close(grads["step"], gradient)


def test_the_elbo_and_draws_of_a_hidden_markov_model():
    """Nothing is left to approximate: the ELBO is the evidence, and the draws are of the joint posterior."""
    result = sweepvi.fit(chain, guide=no_guide, estimator="trace_enum", steps=5, score_draws=3)
    transition, step = result.params["transition"], result.params["step"]
    assert result.elbo == pytest.approx(float(by_the_forward_algorithm(transition, step)), rel=1e-5)
    assert result.elbo_se == 0
    draws = result.sample(500)
    paths = torch.stack([draws[f"z{t}"] for t in range(len(SERIES))], -1)
    assert paths.shape == (500, len(SERIES))
    for path in itertools.product((0, 1), repeat=len(SERIES)):
        log_p = -math.log(2) + sum(float(transition[a, b].log()) for a, b in itertools.pairwise(path))
        for z, x in zip(path, SERIES, strict=True):
            log_p += float(dist.Normal(step * z, 1.0).log_prob(torch.tensor(x)))
        p = math.exp(log_p - result.elbo)
        frequency = float((paths == torch.tensor(path)).all(-1).float().mean())
        assert abs(frequency - p) < 4 * (p * (1 - p) / 500) ** 0.5 + 1e-9


def test_draws_of_what_is_summed_over_are_of_its_posterior():
    result = fitted(mixture, guide="auto_delta")
    draws = result.sample(500)
    assert draws["z"].shape == (500, len(X))
    log_joint = WEIGHTS.log() + dist.Normal(draws["m"][0], 1.0).log_prob(X[:, None])
    p = log_joint.softmax(-1)[:, 1]
    frequency = draws["z"].to(X).mean(0)
    assert bool(((frequency - p).abs() < 4 * (p * (1 - p) / 500).sqrt() + 1e-9).all())


def test_the_elbo_has_no_noise_of_variables_drawn_from_their_prior():
    """In a fit's steps, they may be drawn; the reported ELBO is that of the model without them all the same."""
    keys = {"name": "trace_tmc", "num_samples": 3}
    result = fitted(mixture, guide="auto_delta", estimator=keys)
    m = result.sample(1)["m"][0]
    prior = dist.Normal(torch.tensor([-1.0, 1.0]).to(X), 2.0).log_prob(m).sum()
    likelihood = (WEIGHTS.log() + dist.Normal(m, 1.0).log_prob(X[:, None])).logsumexp(-1).sum()
    assert result.elbo == pytest.approx(float(prior + likelihood))
    assert result.elbo_se == pytest.approx(0.0, abs=1e-9)
    assert not torch.allclose(result.losses[-1], -result.losses.new_tensor(result.elbo), atol=0.01)


def minibatched(x):
    """A model that takes two observations at a time, and no more."""
    m = means()
    with pyro.plate("data", len(x), subsample_size=2) as index:
        if len(index) != 2:
            raise ValueError("two at a time")
        z = pyro.sample("z", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(100 * m[..., z], 1.0), obs=100 * x[index].sign())


def test_a_minibatch_is_scaled_outside_of_the_sum():
    seen = []

    def model(x):
        m = means()
        with pyro.plate("data", len(x), subsample_size=2) as index:
            seen.append(index)
            z = pyro.sample("z", dist.Categorical(WEIGHTS))
            pyro.sample("x", dist.Normal(m[..., z], 1.0), obs=x[index])

    def guide(x):
        del x
        pyro.sample("m", dist.Delta(pyro.param("loc", lambda: torch.tensor([-1.5, 1.2]).to(X))).to_event(1))

    component = estimator("trace_enum", max_plate_nesting=1)
    for seed in range(3):
        loss, grads = evaluated(component, lambda: model(X), lambda: guide(X), seed)
        loc = torch.tensor([-1.5, 1.2], dtype=F64, requires_grad=True)
        parts = WEIGHTS.log() + dist.Normal(loc, 1.0).log_prob(X[seen[-1]][:, None])
        prior = dist.Normal(torch.tensor([-1.0, 1.0]).to(X), 2.0).log_prob(loc).sum()
        exact = -(len(X) / 2 * parts.logsumexp(-1).sum() + prior)
        assert loss == pytest.approx(exact.item())
        torch.testing.assert_close(grads["loc"], torch.autograd.grad(exact, loc)[0], rtol=1e-5, atol=1e-5)


def test_draws_of_a_minibatch_belong_to_its_entries():
    """The sign of an observation says for certain what it is of; autoguides have no plate for it."""
    result = fitted(minibatched, guide="auto_delta", steps=3, score_draws=2)
    draws = result.sample(20)
    assert torch.equal(draws["z"], (X[draws["data"]] > 0).long())


def test_an_autoguide_is_made_for_the_rest():
    result = fitted(mixture, steps=1)
    assert {name.split(".")[-1] for name in result.params} == {"m"}
    assert result.sample(2).keys() == {"m", "z"}

    def own_way(x):
        """One variable asks for enumeration, one forbids it: that one must be in the guide."""
        pyro.sample("a", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        b = pyro.sample("b", dist.Bernoulli(0.3), infer={"enumerate": None})
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def of_b(x):
        del x
        pyro.sample("b", dist.Bernoulli(pyro.param("p", torch.tensor(0.5, dtype=F64))))

    def of_none(x):
        del x

    assert fitted(own_way, guide=of_b, steps=1).status == "finished"
    with pytest.raises(ConfigError, match=r"guide: has no b, which the model has; its own: \(none\)"):
        fitted(own_way, guide=of_none)


def coin(x, infer=None):
    z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3).to(x)), infer=infer)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x / 4)


def coin_guide(x):
    del x
    pyro.sample("z", dist.Bernoulli(pyro.param("p", torch.tensor(0.5).to(X), constraint=constraints.unit_interval)))


def test_a_plain_estimator_takes_no_notice_of_enumeration():
    marked, plain = (
        fitted(lambda x, infer=infer: coin(x, infer), guide=coin_guide, estimator="trace")
        for infer in ({"enumerate": "parallel"}, None)
    )
    assert torch.equal(marked.losses, plain.losses)
    assert marked.elbo == plain.elbo
    assert torch.equal(marked.sample(5)["z"], plain.sample(5)["z"])


def test_a_guide_is_scored_with_its_own_draws():
    """Also of variables that were summed over in the fit."""
    result = fitted(coin, guide=coin_guide, score_draws=400)
    q, log_p = result.params["p"], [dist.Normal(z, 1.0).log_prob(X / 4).sum() for z in (0.0, 1.0)]
    exact = q * (log_p[1] + math.log(0.3) - q.log()) + (1 - q) * (log_p[0] + math.log(0.7) - (1 - q).log())
    assert abs(result.elbo - float(exact)) < 4 * result.elbo_se
    assert 0 < result.elbo_se < 0.1


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_a_guide_that_asks_for_enumeration_is_scored_with_its_own_draws(how):
    """While what it leaves out is summed over."""

    def model(x):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.3).to(x)))
        w = pyro.sample("w", dist.Bernoulli(0.2 + 0.5 * z))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x / 4)

    def guide(x):
        del x
        p = pyro.param("p", torch.tensor(0.5).to(X), constraint=constraints.unit_interval)
        pyro.sample("z", dist.Bernoulli(p), infer={"enumerate": how})

    result = fitted(model, guide=guide, score_draws=300, optimizer={"name": "sgd", "lr": 1e-9}, steps=1)
    exact = 0.0
    for z, prior, q in ((0, 0.7, 1 - result.params["p"]), (1, 0.3, result.params["p"])):
        of_w = torch.tensor([0.8 - 0.5 * z, 0.2 + 0.5 * z], dtype=F64)
        log_p = [dist.Normal(z + w, 1.0).log_prob(X / 4).sum() for w in (0.0, 1.0)]
        exact += float(q * ((of_w.log() + torch.stack(log_p)).logsumexp(-1) + math.log(prior) - q.log()))
    assert result.losses[-1].item() == pytest.approx(-exact, rel=1e-6)
    assert abs(result.elbo - exact) < 4 * result.elbo_se
    assert 0 < result.elbo_se < 0.15


@pytest.mark.parametrize("name", ["trace_enum", "trace_tmc"])
def test_a_saved_run_is_loaded_resumed_and_repeated(tmp_path, name):
    options = {"estimator": {"name": name}, "dtype": "float32"}
    whole = fitted(mixture_32, folder=tmp_path / "whole", **options)
    fitted(mixture_32, folder=tmp_path / "part", **options, steps=10)
    resumed = fitted(mixture_32, folder=tmp_path / "part", resume=True, **options)
    again = fitted(mixture_32, **options)
    loaded = sweepvi.FitResult.load(tmp_path / "whole", mixture_32, (X,))
    for other in (resumed, again, loaded):
        assert torch.equal(other.losses, whole.losses)
        assert other.elbo == whole.elbo
        assert torch.equal(other.sample(5)["z"], whole.sample(5)["z"])


def mixture_32(x):
    m = pyro.sample("m", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(m[..., z], 1.0), obs=x)


def countless(x):
    n = pyro.sample("n", dist.Poisson(3.0))
    pyro.sample("x", dist.Normal(n, 1.0).expand([len(x)]).to_event(1), obs=x)


def empty(x):
    del x


def discrete_guide(x):
    m = pyro.sample("m", dist.Delta(torch.tensor([-1.0, 1.0]).to(x)).to_event(1))
    with pyro.plate("data", len(x)):
        infer = {"baseline": {"use_decaying_avg_baseline": True}} if BASELINE else {}
        pyro.sample("z", dist.Categorical(logits=pyro.param("l", lambda: torch.zeros(2).to(m))), infer=infer)


BASELINE: list[str] = []


@pytest.mark.parametrize(
    ("model", "guide", "keys", "message"),
    [
        (countless, empty, {}, r"guide: has no n \(Poisson\), .* cannot be summed over; its own: \(none\)$"),
        (mixture, empty, {"enumerate": None}, r"guide: has no m, z|guide: has no m \(Normal\)"),
        (mixture, empty, {"enumerate": "sequential"}, r"z is in the model alone, where only enumerate=parallel"),
        (summed_by_hand, "auto_normal", {}, r"^estimator: finds no latent variable .* there are: m\. Use trace"),
        (summed_by_hand, "auto_normal", {"name": "trace_tmc"}, "^estimator: finds no latent variable"),
        (mixture, discrete_guide, {"name": "trace_tmc"}, r"those of z \(Categorical\) cannot"),
        (minibatched, "auto_normal", {"name": "trace_tmc"}, "minibatches, or masked: z, x; use trace_enum"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(model, guide, keys, message):
    with pytest.raises(ConfigError, match=message):
        fitted(model, guide=guide, estimator={"name": "trace_enum"} | keys)


def test_without_strictness_nothing_need_be_enumerated():
    for name in ("trace_enum", "trace_tmc"):
        keys = {"name": name, "strict_enumeration_warning": False}
        assert fitted(summed_by_hand, estimator=keys, steps=1).status == "finished"


def test_baselines_are_refused(monkeypatch):
    monkeypatch.setitem(globals(), "BASELINE", ["z"])
    with pytest.raises(ConfigError, match=r"baselines .* at z, which only estimator=trace_graph uses"):
        fitted(mixture, guide=discrete_guide)


def test_num_samples_needs_parallel():
    assert "num_samples = 3: needs enumerate=parallel" in str(
        registry.check("estimator", {"name": "trace_tmc", "num_samples": 3, "enumerate": None})[0]
    )
