"""The loop: determinism, resumption, numerical failure, interruption."""

from __future__ import annotations

import math
import os
import signal
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.api import recipe_from
from sweepvi.engine import Checkpoint, Observer, Snapshot
from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.environment import environment
from sweepvi.errors import CheckpointError, ConfigError, DivergedError

QUICK = {"steps": 40, "score_draws": 20}


def conjugate(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


X = torch.linspace(-1.0, 3.0, 200)


def exact(x, prior=2.0):
    """Posterior mean, posterior sd and log evidence of the conjugate model, in closed form."""
    precision = 1 / prior**2 + len(x)
    covariance = torch.eye(len(x)) + prior**2 * torch.ones(len(x), len(x))
    evidence = dist.MultivariateNormal(torch.zeros(len(x)), covariance).log_prob(x)
    return x.sum().item() / precision, precision**-0.5, evidence.item()


@pytest.mark.parametrize("guide", ["auto_normal", "auto_diagonal_normal", "auto_multivariate_normal"])
def test_finds_the_posterior_in_closed_form(guide):
    """A normal guide contains the exact posterior, where the ELBO is the log evidence and its noise vanishes."""
    mean, sd, evidence = exact(X)
    result = sweepvi.fit(
        conjugate,
        (X,),
        guide=guide,
        optimizer={"name": "clipped_adam", "lr": 0.1},
        scheduler={"name": "exponential", "gamma": 0.997},
        estimator={"name": "trace", "num_particles": 4},
        steps=2000,
    )
    draws = result.sample(2000)["mean"]
    assert draws.mean().item() == pytest.approx(mean, abs=0.05 * sd + 4 * sd / 2000**0.5)
    assert draws.std().item() == pytest.approx(sd, rel=0.1)
    assert result.elbo == pytest.approx(evidence, abs=0.02)
    assert result.elbo <= evidence + 4 * result.elbo_se
    assert result.elbo_se < 0.01


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_fixes_everything(seed):
    torch.manual_seed(torch.seed())
    first = sweepvi.fit("eight_schools", seed=seed, **QUICK)
    torch.randn(7)
    second = sweepvi.fit("eight_schools", seed=seed, **QUICK)
    assert torch.equal(first.losses, second.losses)
    assert first.elbo == second.elbo
    assert not torch.equal(first.losses, sweepvi.fit("eight_schools", seed=seed + 1, **QUICK).losses)


def raw_guide(x):
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("mean", dist.Normal(loc, 0.3))


def test_every_fit_is_scored_on_the_same_noise():
    """The seeds differ, the parameters hardly move: equal scores mean equal draws."""
    still = {"optimizer": {"name": "sgd", "lr": 1e-30}, "guide": raw_guide, **QUICK}
    fits = [sweepvi.fit(conjugate, (X,), seed=seed, **still) for seed in (0, 1)]
    assert fits[0].elbo == fits[1].elbo
    assert not torch.equal(fits[0].losses, fits[1].losses)


def test_parameters_of_the_same_name_outside_are_another_matter():
    alone = sweepvi.fit(conjugate, (X,), guide=raw_guide, **QUICK)
    pyro.param("loc", torch.tensor(100.0))
    again = sweepvi.fit(conjugate, (X,), guide=raw_guide, **QUICK)
    assert torch.equal(again.losses, alone.losses)
    assert pyro.param("loc").item() == 100.0
    pyro.clear_param_store()


def test_same_numbers_after_a_failed_fit():
    before = sweepvi.fit("eight_schools", **QUICK)
    assert sweepvi.fit("radon", optimizer={"name": "sgd", "lr": 1e6}, **QUICK).status == "diverged"
    with pytest.raises(ConfigError):
        sweepvi.fit(conjugate, (torch.zeros(3, 2),))
    assert torch.equal(sweepvi.fit("eight_schools", **QUICK).losses, before.losses)


@pytest.mark.parametrize("optimizer", ["clipped_adam", "adam", "adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resumes_to_the_last_bit(tmp_path, optimizer, dtype):
    choices = {
        "optimizer": optimizer,
        "scheduler": {"name": "exponential", "gamma": 0.99},
        "estimator": {"name": "trace", "num_particles": 2},
        "guide": "auto_low_rank_multivariate_normal",
        "dtype": dtype,
        "score_draws": 5,
    }
    whole = sweepvi.fit("eight_schools", steps=30, **choices)
    sweepvi.fit("eight_schools", steps=11, folder=tmp_path / "run", **choices)
    resumed = sweepvi.fit("eight_schools", steps=30, folder=tmp_path / "run", resume=True, **choices)
    assert torch.equal(resumed.losses, whole.losses)
    torch.testing.assert_close(resumed.rates, whole.rates, rtol=0, atol=0)
    assert resumed.elbo == whole.elbo
    assert all(torch.equal(resumed.params[name], value) for name, value in whole.params.items())
    assert all(value.dtype == getattr(torch, dtype) for value in whole.params.values())


def test_torchs_own_optimizer_class_can_be_given_and_resumes(tmp_path):
    def nadam(groups):
        return torch.optim.NAdam(groups, lr=0.05)

    whole = sweepvi.fit("eight_schools", optimizer=nadam, **QUICK)
    sweepvi.fit("eight_schools", optimizer=nadam, folder=tmp_path / "run", **{**QUICK, "steps": 13})
    resumed = sweepvi.fit("eight_schools", optimizer=nadam, folder=tmp_path / "run", resume=True, **QUICK)
    assert torch.equal(resumed.losses, whole.losses)
    assert resumed.config["optimizer"]["name"] == "python"


CALLS_BEFORE_STEP_1 = 3  # the autoguide's look at the model, that at its sites, and the first evaluation


def breaks_at(step, kind):
    """A model whose loss is not finite at some steps; it counts its calls, as no user's model should."""
    calls = {"count": -CALLS_BEFORE_STEP_1}

    def model():
        calls["count"] += 1
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        if calls["count"] in step:
            if kind == "raises":
                dist.Normal(0.0, torch.tensor(-1.0))
            pyro.factor("bad", x * torch.tensor({"nan": math.nan, "inf": math.inf}[kind]))

    return model


@pytest.mark.parametrize("kind", ["nan", "inf", "raises"])
def test_a_numerical_failure_is_a_status(kind, tmp_path):
    result = sweepvi.fit(breaks_at([5], kind), folder=tmp_path / "run", **QUICK)
    assert result.status == "diverged"
    assert result.message.startswith("step 5: ")
    assert result.steps == 4
    assert len(result.losses) == 5
    assert not math.isfinite(result.losses[-1])
    assert all(value.isfinite().all() for value in result.params.values())
    assert result.elbo is None
    if kind == "inf":
        assert "AutoNormal.locs.x" in result.message
    assert (tmp_path / "run/checkpoint.safetensors").exists()
    assert sweepvi.FitResult.load(tmp_path / "run").status == "diverged"


def narrow(y):
    """Not a number beyond 3."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x * torch.where(x > 3.0, math.nan, 1.0), 1.0), obs=y)


class FarOff:
    def __call__(self, y):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(50.0)), 0.1))


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_a_start_where_arithmetic_fails_is_a_status_too(engine):
    result = sweepvi.fit(narrow, (torch.tensor(1.0),), guide=FarOff(), engine=engine, steps=100)
    assert (result.status, result.steps) == ("diverged", 0)
    assert "step 1: all parameters are finite, the largest loc with 50" in result.message
    assert result.verdict.trust == "no"


def test_data_with_which_arithmetic_fails_everywhere_is_an_error():
    with pytest.raises(ConfigError, match="model: does not run on its data: ValueError: Expected parameter loc"):
        sweepvi.fit(narrow, (torch.tensor(math.nan),), guide=FarOff(), steps=100)


def test_skipping_leaves_one_step_out():
    result = sweepvi.fit(breaks_at([5], "nan"), on_nonfinite="skip", **{**QUICK, "score_draws": 0})
    assert result.status == "finished"
    assert result.skipped == [5]
    assert math.isnan(result.losses[4])
    assert result.losses[5:].isfinite().all()


def test_skipping_for_ever_ends():
    result = sweepvi.fit(breaks_at(range(11, 1000), "nan"), engine="eager", on_nonfinite="skip", steps=1000)
    assert result.status == "diverged"
    assert result.steps == 110


def test_raising_saves_first(tmp_path):
    with pytest.raises(DivergedError, match="step 5: "):
        sweepvi.fit(breaks_at([5], "nan"), on_nonfinite="raise", folder=tmp_path / "run", **QUICK)
    assert sweepvi.FitResult.load(tmp_path / "run", breaks_at([5], "nan")).steps == 4


class At(Observer):
    """Sends a signal to this process after a step."""

    def __init__(self, step, number):
        self.step, self.number, self.status = step, number, None

    def stepped(self, step, loss):
        if step == self.step:
            os.kill(os.getpid(), self.number)

    def ended(self, status):
        self.status = status


def test_ctrl_c_ends_at_the_next_step_saves_and_can_be_resumed(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    observer = At(7, signal.SIGINT)
    result = sweepvi.fit("eight_schools", folder=tmp_path / "run", progress=observer, **QUICK)
    assert (result.status, result.steps, result.elbo) == ("interrupted", 7, None)
    assert observer.status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = sweepvi.fit("eight_schools", folder=tmp_path / "run", resume=True, **QUICK)
    assert torch.equal(resumed.losses, sweepvi.fit("eight_schools", **QUICK).losses)


def test_an_exception_of_the_model_saves_the_steps_before_it(tmp_path):
    calls = {"count": -2}

    def model():
        calls["count"] += 1
        pyro.sample("x", dist.Normal(0.0, 1.0))
        if calls["count"] == 6:
            raise KeyError("a bug of the user's")

    with pytest.raises(KeyError):
        sweepvi.fit(model, folder=tmp_path / "run", **QUICK)
    calls["count"] = 100
    assert sweepvi.fit(model, folder=tmp_path / "run", resume=True, **QUICK).steps == QUICK["steps"]


def saved(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors", "mine")
    snapshot = Snapshot()
    snapshot.put("part", {"x": torch.arange(1000.0)}, {"n": 1})
    checkpoint.save(snapshot)
    return checkpoint


def test_a_checkpoint_reads_back(tmp_path):
    tensors, meta = saved(tmp_path).load().get("part")
    assert torch.equal(tensors["x"], torch.arange(1000.0))
    assert meta == {"n": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("length", [0, 5, 100, 2000, -1])
def test_a_half_written_checkpoint_is_refused(tmp_path, length):
    checkpoint = saved(tmp_path)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="half written"):
        checkpoint.load()


def test_a_damaged_foreign_or_missing_checkpoint_is_refused(tmp_path):
    checkpoint = saved(tmp_path)
    content = bytearray(checkpoint.path.read_bytes())
    content[-10] ^= 1
    checkpoint.path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="does not match its digest"):
        checkpoint.load()
    with pytest.raises(CheckpointError, match="another configuration"):
        Checkpoint(saved(tmp_path).path, "other").load()
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        Checkpoint(tmp_path / "nothing", "mine").load()


def test_a_checkpoint_of_a_changed_model_is_refused(tmp_path):
    def sized(size):
        def model():
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([size]).to_event(1))

        return model

    sweepvi.fit(sized(1), folder=tmp_path / "run", **QUICK)
    with pytest.raises(CheckpointError, match=r"'AutoNormal.locs.x' is \(2,\)"):
        sweepvi.fit(sized(2), folder=tmp_path / "run", resume=True, **QUICK)


def test_data_is_cast_to_the_settings_type():
    seen = []

    def model(x, parts, n):
        seen.append((x.dtype, parts[0].dtype, parts[1].dtype, n))
        conjugate(x)

    sweepvi.fit(model, (X.numpy(), (X, torch.arange(3)), 2), dtype="float64", steps=2, score_draws=0)
    assert set(seen) == {(torch.float64, torch.float64, torch.int64, 2)}


def test_nothing_to_optimize_is_said():
    with pytest.raises(ConfigError, match="no parameters; there is nothing to optimize"):
        sweepvi.fit(conjugate, (X,), guide=lambda x: pyro.sample("mean", dist.Normal(0.0, 1.0)))


@contextmanager
def engine_of(model, lr=1.0):
    """The engine of a fit of a model without data, as it is before the first step."""
    recipe = recipe_from(
        model,
        guide="auto_normal",
        estimator="trace",
        optimizer={"name": "sgd", "lr": lr},
        scheduler="constant",
        partition="single",
        engine={"name": "eager"},
    )
    with environment(recipe.settings, {}) as isolation:
        yield EagerEngine(recipe, isolation)


def values_of(engine):
    return {name: param.detach().clone() for name, param in engine.optimization.live.items()}


def two_sites():
    pyro.sample("b", dist.Normal(pyro.sample("a", dist.Normal(1.0, 2.0)), 0.5))


def test_gradients_are_what_a_step_follows():
    """Gradient descent with step size 1 moves by minus the gradient."""
    with engine_of(two_sites) as engine:
        loss, gradients = engine.gradients()
    with engine_of(two_sites) as engine:
        before = values_of(engine)
        assert engine.step() == loss
        moved = {name: before[name] - value for name, value in values_of(engine).items()}
    assert len(moved) == 4
    torch.testing.assert_close(gradients, moved)


def test_gradients_move_no_parameter_and_draw_on():
    """Steps that do not move either meet the same draws."""
    with engine_of(two_sites) as engine:
        before = values_of(engine)
        losses = [engine.gradients()[0] for _ in range(3)]
        assert all(torch.equal(before[name], value) for name, value in values_of(engine).items())
        assert all(param.grad is None for param in engine.optimization.live.values())
        assert engine.step_count == 0
    with engine_of(two_sites, lr=1e-30) as engine:
        assert losses == [engine.step() for _ in range(3)]
    assert len(set(losses)) == 3


def test_gradients_that_are_not_finite_raise_and_the_next_ones_are_another_draw():
    with engine_of(breaks_at([2], "inf")) as engine:
        before, first = values_of(engine), engine.gradients()[0]
        with pytest.raises(NonFiniteError, match=r"AutoNormal\.locs\.x"):
            engine.gradients()
        assert all(torch.equal(before[name], value) for name, value in values_of(engine).items())
        assert all(param.grad is None for param in engine.optimization.live.values())
        third = engine.gradients()[0]
    with engine_of(breaks_at([], "inf")) as engine:
        expected = [engine.gradients()[0] for _ in range(3)]
    assert [first, third] == [expected[0], expected[2]]
