"""Lanes: fits of one program at once, each of them the fit that it would be alone."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from lane_parity import DEVICE, ENGINE, agree, as_lanes, eagerly, recipe

import sweepvi
from sweepvi import telling
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes import captured as capturing
from sweepvi.engine.lanes import end, lane_fits, memory
from sweepvi.engine.lanes.captured import NotCapturedError, captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.engine.lanes.starts import restart_seeds

Y = torch.tensor([0.3, -1.2, 0.7, 2.0, 0.1, -0.4])


def regression(y, batch=None):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.Gamma(2.0, 2.0))
    with pyro.plate("data", len(y), subsample_size=batch) as rows:
        pyro.sample("y", dist.Normal(slope, noise), obs=y[rows])


def mixture(y):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Normal(torch.where(z > 0.5, loc[..., 1], loc[..., 0]), 1.0), obs=y)


def mixture_guide(y):
    loc = pyro.param("loc_q", torch.tensor([-0.5, 0.5]))
    pyro.sample("loc", dist.Normal(loc, 0.3).to_event(1))
    with pyro.plate("data", len(y)):
        logits = pyro.param("logits", torch.zeros(len(y)), event_dim=0)
        pyro.sample("z", dist.Bernoulli(logits=logits))


CASES = {
    "trace": {},
    "minibatches": {"model": regression, "args": (Y, 2)},
    "particles": {"estimator": {"name": "trace", "num_particles": 3}},
    "vectorized": {"estimator": {"name": "trace", "num_particles": 3, "vectorize_particles": True}},
    "stl": {"estimator": "stl", "guide": "auto_multivariate_normal"},
    "renyi": {"estimator": {"name": "renyi", "alpha": 0.5, "num_particles": 3}},
    "baselines": {
        "model": mixture,
        "args": (Y,),
        "guide": mixture_guide,
        "estimator": {"name": "trace_graph", "baselines": {"z": "decaying"}, "baseline_beta": 0.8},
    },
    "rloo": {"model": mixture, "args": (Y,), "guide": mixture_guide, "estimator": {"name": "rloo", "num_particles": 3}},
    "gamma": {"model": regression, "args": (Y,), "guide": "auto_delta"},
    "plateau": {"scheduler": {"name": "plateau", "patience": 3, "gamma": 0.5}},
    "torch": {"scheduler": {"name": "torch", "scheduler": "CosineAnnealingLR", "arguments": {"T_max": 40}}},
    "groups": {"partition": "loc_scale", "scheduler": "cosine"},
    "frozen": {
        "partition": {"name": "groups", "groups": {"s": {"glob": "*scale*", "frozen": True}, "r": {"kind": "rest"}}}
    },
    "antithetic": {"engine": {"noise": "antithetic"}},
    "fixed": {"engine": {"noise": "fixed"}},
    "sobol": {"engine": {"noise": "sobol"}},
    "clipped": {"optimizer": {"name": "adam", "clip": {"global_norm": 1.0}}},
    **{name: {"optimizer": name} for name in ("dct_adam", "muon", "schedule_free_prodigy", "adagrad_rmsprop", "rprop")},
}
STEPS = 70  # more than one chunk


@pytest.mark.parametrize("case", CASES)
def test_a_lane_is_the_eager_fit_on_the_same_noise(case):
    made = recipe(**{**CASES[case], "engine": {"steps": STEPS, "seed": 3, **CASES[case].get("engine", {})}})
    [outcome] = as_lanes([made])
    assert outcome.status == "finished"
    agree(outcome, *eagerly(made, STEPS), 1e-8)


def test_in_float32_too():
    made = recipe(engine={"steps": 200, "dtype": "float32"})
    [outcome] = as_lanes([made])
    agree(outcome, *eagerly(made, 200), 1e-4)


def test_lanes_differ_in_every_number():
    """Optimizer, step size, schedule, bound, partition, seed, length, initial scale, order of the divergence."""
    base = {"estimator": {"name": "renyi", "alpha": 0.5, "num_particles": 2}}
    recipes = [
        recipe(**base, engine={"steps": 70, "seed": 1}),
        recipe(**base, engine={"steps": 30, "seed": 2}, optimizer={"name": "adam", "lr": 0.1}),
        recipe(**base, engine={"steps": 50}, scheduler="cosine", optimizer={"name": "clipped_adam", "clip_norm": 0.5}),
        recipe(estimator={"name": "renyi", "alpha": -0.5, "num_particles": 2}, engine={"steps": 40}),
        recipe(**base, engine={"steps": 60}, guide={"name": "auto_normal", "init_scale": 0.3}, partition="loc_scale"),
    ]
    for made, outcome in zip(recipes, as_lanes(recipes), strict=True):
        assert outcome.steps == made.settings.steps
        agree(outcome, *eagerly(made, made.settings.steps), 1e-8)


def test_lanes_of_different_lengths_share_minibatches():
    """Also once the shortest has ended: of a matrix product, more rows would be another shape."""
    x = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)

    def linear(x, y):
        weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=4) as rows:
            pyro.sample("y", dist.Normal(x[rows] @ weight, 1.0), obs=y[rows])

    recipes = [recipe(linear, (x, x.sum(-1)), engine={"steps": steps}) for steps in (150, 10)]
    for made, outcome in zip(recipes, as_lanes(recipes), strict=True):
        agree(outcome, *eagerly(made, made.settings.steps), 1e-8)


def test_neither_place_nor_neighbours_matter():
    """Bit for bit, where there are as many lanes."""
    one, *others = (recipe(engine={"steps": 100, "seed": seed, "dtype": "float32"}) for seed in range(4))
    first, last = as_lanes([one, *others])[0], as_lanes([*others, one])[-1]
    assert torch.equal(first.losses, last.losses)
    assert all(torch.equal(value, last.snapshot.tensors[name]) for name, value in first.snapshot.tensors.items())


def test_number_of_lanes_matters_by_rounding_only():
    made = recipe(engine={"steps": 100})
    [alone] = as_lanes([made])
    several = as_lanes([made, *(recipe(engine={"steps": 100, "seed": seed}) for seed in (5, 6, 7))])
    torch.testing.assert_close(alone.losses, several[0].losses, rtol=1e-10, atol=1e-10)


class TestCohorts:
    @pytest.fixture
    def entrants(self):
        recipes = [recipe(engine={"steps": 40, "seed": seed}) for seed in range(3)]
        with environment(recipes[0].settings, {}) as isolation:
            engine = EagerEngine(recipes[0], isolation)
            found, start = captured(engine), Start.of(engine)
            yield found, [Entrant.of(one, start, engine.optimization, found) for one in recipes], recipes[0].settings

    def run(self, cohort, steps):
        while max(cohort.done) < steps and any(cohort.running):
            cohort.advance(steps)

    def test_a_refilled_lane_is_a_fresh_fit_and_its_neighbour_notices_nothing(self, entrants):
        found, (one, other, third), settings = entrants
        cohort = Cohort(found, [one, other], 2, settings, 300)
        self.run(cohort, 20)
        cohort.put({0: third})
        while any(cohort.running):
            cohort.advance(40)
        undisturbed, fresh = (
            Cohort(found, [one, other], 2, settings, 300),
            Cohort(found, [one, third], 2, settings, 300),
        )
        self.run(undisturbed, 20)
        self.run(undisturbed, 40)
        self.run(fresh, 40)
        assert torch.equal(cohort.state.arena[0], fresh.state.arena[1])
        assert torch.equal(cohort.course(0).losses, fresh.course(1).losses)
        assert torch.equal(cohort.state.arena[1], undisturbed.state.arena[1])
        assert torch.equal(cohort.course(1).losses, undisturbed.course(1).losses)

    def test_an_optimizer_of_another_form_is_refused(self, entrants):
        found, (one, *_), settings = entrants
        made = recipe(optimizer="adam", engine={"steps": 40})
        with environment(made.settings, {}) as isolation:
            engine = EagerEngine(made, isolation)
            foreign = Entrant.of(made, Start.of(engine), engine.optimization, found)
        with pytest.raises(KeyError, match="of this form"):
            Cohort(found, [one], 1, settings, 300).put({0: foreign})


def diverging(scale):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("cliff", torch.where(x.abs() < scale, 0.0, math.nan) * x)


def test_a_lane_that_diverges_says_where_and_disturbs_nobody():
    def settings(lr):
        return {
            "optimizer": {"name": "sgd", "lr": lr},
            "steps": 60,
            "restarts": 1,
            "seed": 1,
            "score_draws": 10,
            "posterior_draws": 0,
        }

    lanes = {"engine": "lanes", "dtype": "float64"}
    bad, good = sweepvi.fit_many(diverging, (6.0,), settings=[settings(5.0), settings(0.01)], **lanes)
    assert (bad.status, good.status) == ("diverged", "finished")
    assert bad.message.startswith(f"step {bad.steps + 1}: loss is nan; non-finite gradient of AutoNormal")
    assert len(bad.losses) == bad.steps + 1
    assert math.isnan(bad.losses[-1])
    assert bad.elbo is None
    still, alone = sweepvi.fit_many(diverging, (6.0,), settings=[settings(0.01), settings(0.01)], **lanes)
    assert torch.equal(good.losses, alone.losses)
    assert torch.equal(still.losses, alone.losses)


def test_steps_that_are_left_out():
    result = sweepvi.fit(
        diverging,
        (1.5,),
        engine={**ENGINE, "on_nonfinite": "skip", "score_draws": 0},
        guide={"name": "auto_normal", "init_scale": 1.0},
        optimizer={"name": "sgd", "lr": 1e-6},
        steps=80,
    )
    assert result.status == "finished"
    assert result.steps == 80
    assert 2 <= len(result.skipped) <= 40
    assert all(math.isnan(result.losses[step - 1]) for step in result.skipped)


def test_parameters_that_overflow_in_the_last_step_are_a_divergence():
    """Of a fit whose lane is another's then, too: the gradient before it was finite."""

    def steep():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("slope", 1e200 * x)

    settings = [{"seed": seed, "steps": 1} for seed in range(3)]
    optimizer = {"name": "sgd", "lr": 1e200}
    engine = {**ENGINE, "score_draws": 5, "memory": 40e3 / 2**30}
    for result in sweepvi.fit_many(steep, settings=settings, engine=engine, optimizer=optimizer):
        assert result.status == "diverged"
        assert result.message.startswith("after step 1: non-finite parameter AutoNormal.locs.x")


class TestRestarts:
    def test_the_best_is_the_result(self):
        result = sweepvi.fit("eight_schools", engine={**ENGINE, "restarts": 3}, steps=300, seed=7)
        assert result.engine == "lanes"
        assert [each["seed"] for each in result.restarts] == restart_seeds(7, 3)
        best = max(result.restarts, key=lambda each: each["elbo"])
        assert (result.seed, result.elbo) == (best["seed"], best["elbo"])
        assert result.r_hat.keys() == result.params.keys()
        assert all(0.5 < value < 10 for value in result.r_hat.values())
        assert 1 <= result.agreeing <= 3
        lone = sweepvi.fit("eight_schools", engine=ENGINE, steps=300, seed=best["seed"])
        torch.testing.assert_close(lone.losses, result.losses, rtol=1e-9, atol=1e-9)

    def test_they_are_told_in_a_line(self, tmp_path):
        result = sweepvi.fit("eight_schools", engine={**ENGINE, "restarts": 3}, steps=300, seed=7)
        worst = max(result.r_hat, key=lambda name: result.r_hat[name])
        said = f"best of 3 restarts (seed {result.seed}); {result.agreeing} of them agree in the ELBO; "
        said += f"R-hat at most {result.r_hat[worst]:.3g} ({worst})"
        assert said in telling.one(result, tmp_path).splitlines()

    def test_r_hat_tells_two_optima_apart(self):
        def two_modes():
            x = pyro.sample("x", dist.Normal(0.0, 10.0))
            pyro.factor("modes", torch.logaddexp(-0.5 * ((x - 4) / 0.1) ** 2, -0.5 * ((x + 4) / 0.1) ** 2))

        guide = {"name": "auto_normal", "init": "sample"}
        result = sweepvi.fit(two_modes, guide=guide, engine={**ENGINE, "restarts": 6}, steps=600)
        assert result.r_hat["AutoNormal.locs.x"] > 5

    def test_seeds_are_far_apart(self):
        assert len({seed for own in range(50) for seed in restart_seeds(own, 4)}) == 200

    def test_save_load_and_resume(self, tmp_path):
        kwargs = {"engine": {**ENGINE, "restarts": 3, "checkpoint_every": 30}}
        whole = sweepvi.fit("eight_schools", steps=100, **kwargs)
        sweepvi.fit("eight_schools", steps=70, folder=tmp_path / "run", **kwargs)
        resumed = sweepvi.fit("eight_schools", steps=100, folder=tmp_path / "run", resume=True, **kwargs)
        torch.testing.assert_close(resumed.losses, whole.losses, rtol=1e-12, atol=1e-12)
        if DEVICE != "cpu":
            return  # A chunk that begins elsewhere may differ in its last bit.
        assert torch.equal(resumed.losses, whole.losses)
        assert resumed.elbo == whole.elbo
        assert resumed.r_hat.keys() == whole.r_hat.keys()
        loaded = sweepvi.FitResult.load(tmp_path / "run")
        assert loaded.restarts == resumed.restarts
        assert loaded.r_hat == resumed.r_hat
        assert all(torch.equal(loaded.params[name], value) for name, value in whole.params.items())
        assert torch.equal(loaded.sample(3)["mu"], whole.sample(3)["mu"])


def test_many_of_one_setting_is_one_fit():
    setting = {"optimizer": {"name": "adam", "lr": 0.05}, "seed": 4, "steps": 50, "restarts": 2}
    [many] = sweepvi.fit_many("eight_schools", settings=[setting], engine="lanes")
    one = sweepvi.fit("eight_schools", engine="lanes", **setting)
    assert torch.equal(many.losses, one.losses)
    assert many.elbo == one.elbo
    assert many.config == one.config


def test_more_fits_than_there_is_memory_for_wait():
    settings = [{"seed": seed, "steps": 20 + seed} for seed in range(5)]
    common = {"engine": {**ENGINE, "score_draws": 5}}
    together = sweepvi.fit_many("eight_schools", settings=settings, **common)
    common["engine"]["memory"] = 80e3 / 2**30
    waiting = sweepvi.fit_many("eight_schools", settings=settings, **common)
    for one, other in zip(together, waiting, strict=True):
        assert one.status == other.status == "finished"
        assert one.steps == other.steps
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-9, atol=1e-9)


def test_more_fits_than_a_processors_cache_has_room_for_wait(monkeypatch):
    settings = [{"seed": seed, "steps": 20 + seed} for seed in range(7)]
    common = {"engine": {**ENGINE, "score_draws": 5}}
    together = sweepvi.fit_many("eight_schools", settings=settings, **common)
    size = sum(value.numel() for value in together[0].params.values())
    monkeypatch.setattr(memory, "IN_CACHE", 5 * size)
    monkeypatch.setattr(memory, "FEWEST", 2)
    widths = []
    before = lane_fits.Cohort.advance

    def noted(self, *given):
        widths.append(self.lanes)
        return before(self, *given)

    monkeypatch.setattr(lane_fits.Cohort, "advance", noted)
    waiting = sweepvi.fit_many("eight_schools", settings=settings, **common)
    assert max(widths) == 4  # the next lower number of lanes
    for one, other in zip(together, waiting, strict=True):
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-9, atol=1e-9)


def test_too_little_memory_is_an_error():
    with pytest.raises(
        sweepvi.ConfigError, match=r"engine.restarts: 2 fits at once need .* GiB, and there is room for"
    ):
        sweepvi.fit("eight_schools", engine={**ENGINE, "restarts": 2, "memory": 1e-6}, steps=10)


def branching(y):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    scale = 1.0 if x > 0 else 2.0
    pyro.sample("y", dist.Normal(x, scale), obs=y.mean())


def unseen(y):
    pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(torch.empty(len(y)).random_(3), 1.0).to_event(1), obs=y)


class TestWhatCannotBeCaptured:
    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            (branching, r"test_lanes.py:\d+: branches on the value of a tensor"),
            (unseen, r"the draw of y .Normal. takes its random numbers"),
        ],
        ids=["branching", "unseen"],
    )
    def test_auto_runs_eagerly_and_says_why(self, model, reason):
        result = sweepvi.fit(model, (Y,), engine="auto", steps=100, score_draws=5)
        assert result.engine == "eager"
        assert any("ran on the eager engine" in note for note in result.notes)
        with pytest.raises(sweepvi.ConfigError, match=rf"engine: lanes cannot run this fit: .*{reason}"):
            sweepvi.fit(model, (Y,), engine="lanes", steps=100)

    def test_short_fits_are_not_worth_it(self):
        assert sweepvi.fit("eight_schools", engine="auto", steps=20, score_draws=5).engine == "eager"
        assert sweepvi.fit("eight_schools", engine="auto", steps=200, score_draws=5).engine == "lanes"

    def test_restarts_need_lanes(self):
        with pytest.raises(sweepvi.ConfigError, match=r"engine.restarts = 3: several fits at once need lanes"):
            sweepvi.fit(branching, (Y,), engine="auto", steps=100, restarts=3)

    def test_a_wrong_gradient_is_noticed(self, monkeypatch):
        """A fault planted in what is captured: the loss is right, and one gradient is not."""
        gradients = capturing.Captured.gradients

        def faulty(self, arena, *args):
            gradient, loss, state = gradients(self, arena, *args)
            return gradient * torch.linspace(1.0, 1.01, gradient.shape[-1]), loss, state

        monkeypatch.setattr(capturing.Captured, "gradients", faulty)
        made = recipe()
        with environment(made.settings, {}) as isolation, pytest.raises(NotCapturedError, match="the gradient of"):
            captured(EagerEngine(made, isolation))


@pytest.mark.parametrize(("error", "noticed"), [(1e-7, False), (1e-2, True)])
def test_a_gradient_may_differ_as_roundings_do(error, noticed, monkeypatch):
    """Of a program that turns one rounding of a parameter into many of its gradient, and the same of a plain one."""

    def shaky():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("waves", 1e-9 * (1e9 * x).sin())

    def plain():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    gradients = capturing.Captured.gradients

    def faulty(self, *args):
        gradient, loss, state = gradients(self, *args)
        return gradient * (1.0 + error), loss, state

    monkeypatch.setattr(capturing.Captured, "gradients", faulty)
    found = [sweepvi.fit(model, steps=100, score_draws=0, dtype="float64").engine for model in (shaky, plain)]
    assert found == ["eager" if noticed else "lanes", "eager"]


def test_nothing_stays_changed():
    before = torch.distributions.Distribution._validate_args, torch.get_rng_state(), torch.get_num_threads()
    dirichlet = torch.distributions.dirichlet._Dirichlet
    sweepvi.fit("eight_schools", engine={**ENGINE, "threads": 1}, steps=20)
    with pytest.raises(sweepvi.ConfigError):
        sweepvi.fit(branching, (Y,), engine="lanes", steps=100)
    after = torch.distributions.Distribution._validate_args, torch.get_rng_state(), torch.get_num_threads()
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]
    assert torch.distributions.dirichlet._Dirichlet is dirichlet
    assert not pyro.get_param_store().keys()


def test_the_score_is_that_of_the_parameters():
    """Many draws by lanes, and many by the eager engine, of the same parameters."""
    kwargs = {"steps": 1, "dtype": "float64", "score_draws": 4000, "optimizer": {"name": "sgd", "lr": 1e-9}}
    lanes = sweepvi.fit("eight_schools", engine={"name": "lanes", "restarts": 1}, **kwargs)
    eager = sweepvi.fit("eight_schools", engine="eager", **kwargs)
    assert abs(lanes.elbo - eager.elbo) < 4 * math.hypot(lanes.elbo_se, eager.elbo_se)
    assert lanes.elbo_se == pytest.approx(eager.elbo_se, rel=0.1)


def test_scores_and_posterior_have_their_own_draws_in_parts_too(monkeypatch):
    common = {"engine": {**ENGINE, "steps": 5, "score_draws": 20, "posterior_draws": 12}}
    settings, asked, before = [{"seed": seed} for seed in range(2)], set(), end.DrawFunction.given

    def noted(self, first, count, seed):
        asked.add((first, count, seed))
        return before(self, first, count, seed)

    monkeypatch.setattr(end.DrawFunction, "given", noted)
    whole = sweepvi.fit_many("eight_schools", settings=settings, **common)
    monkeypatch.setattr(end, "AT_ONCE", 8)
    parts = sweepvi.fit_many("eight_schools", settings=settings, **common)
    for one, other in zip(whole, parts, strict=True):
        assert math.isclose(one.elbo, other.elbo, rel_tol=1e-10)
        assert math.isclose(one.elbo_se, other.elbo_se, rel_tol=1e-8)
    scores, posterior = {(0, 20), (0, 8), (8, 8), (16, 8)}, {(0, 20), (0, 8), (8, 8)}
    assert asked >= {(*part, end.SCORE_SEED) for part in scores} | {(*part, end.POSTERIOR_SEED) for part in posterior}


def test_a_program_that_is_another_at_every_call_runs_eagerly():
    calls = iter(range(10**6))

    def annealed():
        with pyro.poutine.scale(scale=min(1.0, 1e-6 * (1 + next(calls)))):
            pyro.sample("x", dist.Normal(0.0, 1.0))

    result = sweepvi.fit(annealed, steps=100, score_draws=5)
    assert result.engine == "eager"
    assert result.notes == [
        "ran on the eager engine: its loss is another at every call, on the same parameters and draws"
    ]


def test_a_flow_has_one_restart_unless_more_are_asked_for():
    result = sweepvi.fit("eight_schools", guide="auto_iaf_normal", steps=100, score_draws=5)
    assert (result.engine, result.restarts) == ("lanes", [])
    with pytest.raises(sweepvi.ConfigError, match="buffers that differ between seeds"):
        sweepvi.fit("eight_schools", guide="auto_iaf_normal", steps=100, score_draws=5, restarts=2)


def test_restarts_that_do_not_start_are_left_out():
    def model():
        if torch.initial_seed() > 2**31:  # that of a restart
            raise ValueError("no start")
        pyro.sample("x", dist.Normal(0.0, 1.0))

    result = sweepvi.fit(model, steps=100, score_draws=5)
    assert (result.status, result.engine, result.restarts) == ("finished", "lanes", [])
    with pytest.raises(sweepvi.ConfigError, match=r"under seed 2654435761, the model: .*no start"):
        sweepvi.fit(model, steps=100, score_draws=5, restarts=2)
