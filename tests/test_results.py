"""Results: saved, loaded, sampled."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Predictive
from safetensors.torch import load_file

import sweepvi
from sweepvi import provenance
from sweepvi.diagnostics import elbo_score
from sweepvi.optim import Rule, ScheduleFreeAdamRule

QUICK = {"steps": 60, "score_draws": 30}


@dataclass(frozen=True)
class Averaging(Rule):
    """Gradient steps whose result is the mean of all iterates: an optimizer of the user's own."""

    slots = ("total", "count")

    lr: float = 0.01

    def hyper(self):
        return {"lr": self.lr, "clip": {}}

    def update(self, grad, param, slots, hyper):
        delta = -hyper["lr"] * grad.clamp(-1, 1)
        return delta, {"total": slots["total"] + param + delta, "count": slots["count"] + 1}

    def evaluated(self, param, slots, hyper):
        return slots["total"] / slots["count"]


def own(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=3) as batch:
        local = pyro.sample("local", dist.Normal(mean, 1.0))
        pyro.deterministic("twice", 2 * local)
        pyro.sample("x", dist.Normal(local, 1.0), obs=x[batch])


def test_a_saved_result_is_the_result(tmp_path):
    result = sweepvi.fit("eight_schools", folder=tmp_path / "run", **QUICK)
    loaded = sweepvi.FitResult.load(tmp_path / "run")
    for name in (
        "status",
        "elbo",
        "elbo_se",
        "data_size",
        "elbo_per_datum",
        "steps",
        "seconds",
        "seed",
        "config",
        "notes",
        "provenance",
        "engine",
    ):
        assert getattr(loaded, name) == getattr(result, name), name
    assert torch.equal(loaded.losses, result.losses)
    torch.testing.assert_close(loaded.rates, result.rates, rtol=0, atol=0)
    assert {name: value.tolist() for name, value in loaded.params.items()} == {
        name: value.tolist() for name, value in result.params.items()
    }
    for name, draws in result.sample(7, seed=3).items():
        assert torch.equal(loaded.sample(7, seed=3)[name], draws)


def test_of_many_fits_the_commit_is_asked_for_once(monkeypatch):
    asked = []
    monkeypatch.setattr(provenance, "_git", lambda *words: asked.append(words[0]) or "4711")
    results = sweepvi.fit_many("eight_schools", settings=[{"seed": seed} for seed in range(3)], restarts=1, **QUICK)
    assert asked == ["rev-parse", "status"]
    for result in results:
        assert result.provenance["git_commit"] == "4711+changes"
        assert result.provenance["versions"]["torch"] == torch.__version__


def test_save_elsewhere_and_load(tmp_path):
    result = sweepvi.fit("eight_schools", **QUICK)
    result.save(tmp_path / "there")
    assert torch.equal(sweepvi.FitResult.load(tmp_path / "there").sample(2)["theta"], result.sample(2)["theta"])


def test_result_json_is_complete(tmp_path):
    sweepvi.fit("eight_schools", folder=tmp_path, **QUICK)
    content = json.loads((tmp_path / "result.json").read_text())
    for key in (
        "status",
        "elbo",
        "elbo_se",
        "steps",
        "seconds",
        "steps_per_second",
        "engine",
        "seed",
        "versions",
        "git_commit",
        "config_hash",
    ):
        assert key in content
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "config.yaml",
        "loss.png",
        "losses.csv",
        "params.safetensors",
        "posterior.csv",
        "result.json",
    ]


def test_draws_are_of_latent_and_deterministic_sites_and_seeded():
    result = sweepvi.fit("eight_schools", **QUICK)
    draws = result.sample(6)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "mu": (6,),
        "tau": (6,),
        "theta_trans": (6, 8),
        "theta": (6, 8),
    }
    torch.testing.assert_close(draws["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_trans"])
    assert torch.equal(result.sample(6)["mu"], draws["mu"])
    assert not torch.equal(result.sample(6, seed=1)["mu"], draws["mu"])


def test_model_and_guide_are_ready_for_predictive():
    result = sweepvi.fit("eight_schools", **QUICK)
    data = result.runnable.problem.kwargs
    predictive = Predictive(result.model, guide=result.guide, num_samples=9)
    assert predictive(effect=None or data["effect"], standard_error=data["standard_error"])["theta"].shape[0] == 9
    assert set(result.guide.median(**data)) == {"mu", "tau", "theta_trans"}


def test_an_own_model_must_be_given_again(tmp_path):
    x = torch.randn(9)
    result = sweepvi.fit(own, (x,), folder=tmp_path, **QUICK)
    plain = sweepvi.FitResult.load(tmp_path)
    assert plain.elbo == result.elbo
    with pytest.raises(sweepvi.SweepviError, match="model or guide is your own"):
        plain.sample(1)
    assert torch.equal(sweepvi.FitResult.load(tmp_path, own, (x,)).sample(3)["mean"], result.sample(3)["mean"])


def test_arguments_given_as_a_tensor_are_refused_when_loading_too(tmp_path):
    x = torch.randn(9)
    sweepvi.fit(own, (x,), folder=tmp_path, **QUICK)
    with pytest.raises(sweepvi.ConfigError, match="args: must be a tuple of arguments, not a Tensor"):
        sweepvi.FitResult.load(tmp_path, own, x)


def test_no_result_there_is_said(tmp_path):
    with pytest.raises(sweepvi.SweepviError, match="holds no result"):
        sweepvi.FitResult.load(tmp_path)


def test_a_folder_with_a_run_is_not_written_over(tmp_path):
    sweepvi.fit("eight_schools", folder=tmp_path, **QUICK)
    with pytest.raises(sweepvi.ConfigError, match="holds a run already"):
        sweepvi.fit("eight_schools", folder=tmp_path, **QUICK)


def test_auto_delta_says_that_its_elbo_is_not_comparable():
    assert "not comparable" in sweepvi.fit("eight_schools", guide="auto_delta", **QUICK).notes[0]


def test_elbo_score():
    weights = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    score = elbo_score(weights)
    assert score.elbo == 3.0
    assert score.standard_error == pytest.approx((14 / 3) ** 0.5 / 2)
    assert elbo_score(torch.tensor([1.0, float("nan"), float("inf")])).nonfinite == 2
    assert elbo_score(torch.tensor([1.0, float("nan")])).elbo is None
    assert elbo_score(torch.empty(0)).elbo is None
    assert elbo_score(torch.tensor([1.5])).standard_error is None


def test_components_as_name_mapping_and_object_are_the_same():
    from sweepvi.optim import ClippedAdamRule

    fits = [
        sweepvi.fit("eight_schools", optimizer=optimizer, **QUICK)
        for optimizer in ("clipped_adam", {"name": "clipped_adam", "lr": 0.02}, ClippedAdamRule(lr=0.02))
    ]
    assert all(torch.equal(fit.losses, fits[0].losses) for fit in fits)
    assert all(fit.config == fits[0].config for fit in fits)


def test_all_problems_of_python_arguments_come_together():
    with pytest.raises(sweepvi.ConfigError) as caught:
        sweepvi.fit(
            "radn",
            (torch.zeros(1),),
            guide="auto_norm",
            optimizer={"name": "adam", "lr": 0},
            steps=0,
            sede=1,
            scheduler=3,
        )
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"args", "model.name", "guide.name", "optimizer.lr", "engine.steps", "engine.sede", "scheduler"}


@pytest.mark.parametrize("optimizer", ["schedule_free_prodigy", ScheduleFreeAdamRule(), Averaging()], ids=str)
def test_the_result_of_an_optimizer_that_averages_is_its_average(tmp_path, optimizer):
    """While it runs, parameters stand elsewhere; saved, loaded and continued, each is what it should be."""
    how = {"optimizer": optimizer, "score_draws": 20, "seed": 1}
    whole = sweepvi.fit("eight_schools", steps=40, **how)
    half = sweepvi.fit("eight_schools", steps=25, folder=tmp_path, **how)
    stands = load_file(tmp_path / "checkpoint.safetensors")
    name = "AutoNormal.locs.mu"
    assert not torch.equal(stands[f"param/{name}"], half.params[name])
    loaded = sweepvi.FitResult.load(tmp_path)
    assert all(torch.equal(loaded.params[key], value) for key, value in half.params.items())
    assert torch.equal(loaded.sample(3)["mu"], half.sample(3)["mu"])
    resumed = sweepvi.fit("eight_schools", steps=40, folder=tmp_path, resume=True, **how)
    assert torch.equal(resumed.losses, whole.losses)
    assert all(torch.equal(resumed.params[key], value) for key, value in whole.params.items())
    assert resumed.elbo == whole.elbo
