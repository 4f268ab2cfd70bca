"""Fits on frozen noise: the objective is the one written out here, its minimum scipy's, the rest as of every fit."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from scipy import optimize

import sweepvi
from sweepvi import api, registry
from sweepvi.engine.environment import environment
from sweepvi.engine.frozen.demands import demand_derivative
from sweepvi.engine.frozen.objective import DrawnLosses, FrozenObjective
from sweepvi.engine.frozen.trials import FrozenTrials
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.noise import Draw, NoiseLayout
from sweepvi.engine.trial_run import start
from sweepvi.engine.trials import Ended, Failed, Task
from sweepvi.errors import ConfigError
from sweepvi.optim import LBFGS, TrustRegionNewton
from sweepvi.programs import reachable_modules
from sweepvi.results import FitResult
from sweepvi.sweep.program import program_of

F64 = torch.float64
DESIGN = torch.tensor([[1.0, 0.8], [0.9, 1.1], [0.2, -0.3]], dtype=F64)
DATA = torch.tensor([2.0, 1.0, -0.5], dtype=F64)
PRECISION = (torch.eye(2, dtype=F64) + DESIGN.T @ DESIGN).numpy()
MEAN = np.linalg.solve(PRECISION, (DESIGN.T @ DATA).numpy())
SD = np.sqrt(np.linalg.inv(PRECISION).diagonal())
MEAN_FIELD_SD = PRECISION.diagonal() ** -0.5
EVIDENCE = float(
    torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=F64), torch.eye(3).double() + DESIGN @ DESIGN.T
    ).log_prob(DATA)
)
BASE = {"engine": "lanes", "noise": "fixed", "dtype": "float64", "restarts": 1}
QUICK = {**BASE, "score_draws": 50, "posterior_draws": 0}

ENGINE = {"name": "lanes", **{key: value for key, value in QUICK.items() if key != "engine"}}


def model(y):
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    pyro.deterministic("sum", z.sum())
    pyro.sample("y", dist.Normal(DESIGN.to(z) @ z, 1.0).to_event(1), obs=y)


def fit(optimizer, guide="auto_normal", **more):
    return sweepvi.fit(model, (DATA,), optimizer=optimizer, guide=guide, **{**QUICK, **more})


def frozen_draws(seed, draws):
    layout = NoiseLayout([Draw("normal", (2,), F64)])
    filled = layout.filled(torch.tensor([seed]), torch.arange(draws))
    return np.stack([layout.of_lane({s: rows[m, 0] for s, rows in filled.items()})[0].numpy() for m in range(draws)])


def minimum(seed, draws):
    """Mean and standard deviation of the independent normals with the least mean of log q − log p over these draws."""
    noise = frozen_draws(seed, draws)

    def objective(x):
        z = x[:2] + np.exp(x[2:]) * noise - MEAN
        return 0.5 * np.einsum("mi,ij,mj->m", z, PRECISION, z).mean() - x[2:].sum()

    found = optimize.minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    rest = -0.5 * (noise**2).sum(1).mean() - 0.5 * np.linalg.slogdet(PRECISION)[1] - EVIDENCE
    return found.x[:2], np.exp(found.x[2:]), found.fun + rest


@pytest.mark.parametrize("minimizer", [LBFGS, TrustRegionNewton])
def test_the_minimum_is_scipys_of_the_objective_written_out(minimizer):
    result = fit(minimizer(draws=8, max_draws=8, gradient_tolerance=1e-7), seed=5)
    mean, sd, value = minimum(5, 8)
    assert result.params["AutoNormal.locs.z"].numpy() == pytest.approx(mean, abs=1e-5)
    assert result.params["AutoNormal.scales.z"].numpy() == pytest.approx(sd, abs=1e-5)
    # Losses are those before each step: the last step is too small to be seen.
    assert float(result.losses[-1]) == pytest.approx(value, abs=1e-6)
    assert (result.status, result.frozen["end"], result.frozen["draws"]) == ("finished", "max_draws", 8)
    assert result.frozen["gap"] is None
    assert result.frozen["gradient_size"] <= 1e-7
    assert result.steps == len(result.losses) == len(result.rates["all"]) < 40
    assert "optimizer.max_draws" in result.stopped


@pytest.mark.parametrize(
    ("guide", "geometry"),
    [("auto_normal", "standardize"), ("auto_diagonal_normal", "none")],
)
def test_linear_response_has_the_standard_deviations_that_independent_normals_lack(guide, geometry):
    optimizer = TrustRegionNewton(draws=1024, linear_response=True)
    result = fit(optimizer, guide, geometry=geometry, posterior_draws=10_000)
    assert result.posterior is not None
    rows = [result.posterior[f"z[{place}]"] for place in range(2)]
    assert [row.mean for row in rows] == pytest.approx(MEAN, abs=0.05)
    assert [row.sd for row in rows] == pytest.approx(MEAN_FIELD_SD, rel=0.05)
    assert max(MEAN_FIELD_SD / SD) < 0.81
    assert [row.lr_sd for row in rows] == pytest.approx(SD, rel=0.03)
    # That of a sum needs the covariance.
    assert result.posterior["sum"].lr_sd == pytest.approx(np.linalg.inv(PRECISION).sum() ** 0.5, rel=0.03)
    assert [row.lr_mean for row in rows] == pytest.approx([row.mean for row in rows], abs=0.03)
    # A mean of M draws of a standard deviation, seen by the right one: somewhat below M to the power of -1/2.
    assert result.frozen["mean_error"] == pytest.approx(result.frozen["draws"] ** -0.5, rel=0.4)


def test_the_standard_error_of_a_mean_is_that_over_other_draws():
    """DADVI's: by the curvature and the scatter of gradients at one minimum, as over the minima of many seeds."""
    result = fit(LBFGS(draws=64, max_draws=64, linear_response=True), posterior_draws=1000)
    means = np.array([minimum(seed, 64)[0] for seed in range(40)])
    assert result.frozen["mean_error"] == pytest.approx((means.std(0) / SD).max(), rel=0.3)


def test_draws_double_until_that_gains_little():
    few = fit(LBFGS(draws=4, tolerance=1.0))
    assert (few.frozen["draws"], few.frozen["end"]) == (16, "converged")
    assert 0.0 <= few.frozen["gap"] <= 1.0
    more = fit(LBFGS(draws=4, tolerance=0.01, max_draws=8192))
    assert more.frozen["end"] == "converged"
    assert more.frozen["draws"] > 64
    assert 0.0 <= more.frozen["gap"] <= 0.01
    mean, sd, _ = minimum(0, more.frozen["draws"])
    assert more.params["AutoNormal.locs.z"].numpy() == pytest.approx(mean, abs=1e-3)
    assert more.params["AutoNormal.scales.z"].numpy() == pytest.approx(sd, abs=1e-3)


def test_a_doubling_gains_what_the_minimum_has_left_to_gain():
    """The mean over seeds of both, in closed form: by the frozen draws, and by the ELBO."""
    best = 0.5 * (PRECISION.diagonal() * MEAN_FIELD_SD**2).sum() - np.log(MEAN_FIELD_SD).sum()
    gains, left = [], []
    for seed in range(40):
        noise = frozen_draws(seed, 128)

        def objective(mean, sd, noise=noise):
            z = mean + sd * noise - MEAN
            return 0.5 * np.einsum("mi,ij,mj->m", z, PRECISION, z).mean() - np.log(sd).sum()

        mean, sd, _ = minimum(seed, 128)
        gains.append(objective(*minimum(seed, 64)[:2]) - objective(mean, sd))
        off = mean - MEAN
        left.append(0.5 * (off @ PRECISION @ off + (PRECISION.diagonal() * sd**2).sum()) - np.log(sd).sum() - best)
    assert np.mean(gains) == pytest.approx(np.mean(left), rel=0.4)


def test_a_fit_ends_after_its_steps():
    result = fit(LBFGS(), steps=2)
    assert (result.status, result.steps, result.frozen["end"]) == ("finished", 2, "steps")
    assert len(result.losses) == 2


def test_a_guide_of_full_rank_has_more_draws_than_its_dimension():
    with pytest.raises(ConfigError, match=r"optimizer.draws = 2: must be at least 3 with this guide"):
        fit(LBFGS(draws=2), AutoMultivariateNormal)
    with pytest.raises(ConfigError, match=r"optimizer.max_draws = 16: must be at least 32"):
        fit(LBFGS(max_draws=16), "auto_multivariate_normal")
    result = fit(LBFGS(tolerance=0.005), "auto_multivariate_normal", score_draws=1000)
    assert result.elbo == pytest.approx(EVIDENCE, abs=0.01)


def test_a_point_needs_no_draws():
    result = fit(TrustRegionNewton(gradient_tolerance=1e-8), "auto_delta")
    assert result.params["AutoDelta.z"].numpy() == pytest.approx(MEAN, abs=1e-6)
    assert (result.frozen["end"], result.frozen["draws"]) == ("converged", 1)


# What every fit has


def test_restarts_run_folder_and_rerun(tmp_path):
    settings = {"restarts": 2, "posterior_draws": 1000, "score_draws": 200}
    optimizer = LBFGS(draws=16, max_draws=32, linear_response=True)
    result = fit(optimizer, folder=tmp_path / "run", **settings)
    assert len(result.restarts) == result.agreeing == 2
    assert result.elbo == max(each["elbo"] for each in result.restarts)
    assert result.verdict is not None
    saved = FitResult.load(tmp_path / "run", model, (DATA,))
    assert saved.frozen == result.frozen
    assert saved.posterior == result.posterior
    assert saved.posterior is not None
    assert list(saved.posterior.to_pandas().columns)[-2:] == ["lr_mean", "lr_sd"]
    assert "LR sd" in saved.posterior.text()
    assert saved.sample(3)["z"].shape == (3, 2)
    again = fit(optimizer, folder=tmp_path / "run", resume=True, **settings)
    assert torch.equal(again.losses, result.losses)
    assert again.elbo == result.elbo
    assert any("resumed from the start" in note for note in again.notes)


def test_other_optimizers_run_beside_on_noise_of_their_own():
    settings = [{"optimizer": LBFGS(draws=16, max_draws=16)}, {"optimizer": "adam", "steps": 20}]
    found = sweepvi.fit_many(model, (DATA,), settings=settings, **{**QUICK, "steps": 30})
    assert [bool(result.frozen) for result in found] == [True, False]
    assert [result.status for result in found] == ["finished", "finished"]


def test_a_loss_that_is_not_finite_is_a_status():
    def broken(y):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        far = torch.where(z > 0.15, torch.inf, 0.0)
        pyro.sample("y", dist.Normal(0.0, 1.0, validate_args=False), obs=far)

    guide = {"name": "auto_normal", "init": "feasible"}
    result = sweepvi.fit(broken, (DATA,), guide=guide, optimizer="lbfgs", **QUICK)
    assert (result.status, result.steps, result.elbo) == ("diverged", 0, None)
    assert result.message == "step 1: loss is inf on 32 frozen draws"
    assert len(result.losses) == 1


def test_trials_are_fits_of_their_own():
    made = api.recipe_from(model, (DATA,), optimizer=LBFGS(draws=16, tolerance=0.1), engine=ENGINE)
    trials = FrozenTrials()
    assert trials.enter([Task(7, made, (), 100, kept=True)]) == []
    assert (trials.running, trials.free) == ([7], 0)
    events = []
    while trials.running:
        events += trials.advance()
    [ended] = events
    assert isinstance(ended, Ended)
    assert (ended.status, len(ended.log_weights), ended.engine) == ("finished", 100, "lanes")
    assert ended.kept is not None
    lone = fit(LBFGS(draws=16, tolerance=0.1))
    assert torch.equal(ended.kept.params["AutoNormal.locs.z"], lone.params["AutoNormal.locs.z"])
    refused = api.recipe_from(gammas, (DATA,), guide=gamma_guide, optimizer="lbfgs", engine=ENGINE)
    [failed] = trials.enter([Task(8, refused)])
    assert isinstance(failed, Failed)
    assert "is not the derivative of the loss" in failed.message
    config = made.config
    assert program_of(config) != program_of({**config, "optimizer": {"name": "adam"}})


# What cannot be


def gammas(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    pyro.sample("y", dist.Normal(0.0, rate).expand([3]).to_event(1), obs=y)


def gamma_guide(y):
    shape = pyro.param("shape", torch.tensor(2.0), constraint=dist.constraints.positive)
    pyro.sample("rate", dist.Gamma(shape, 1.0))


def coins(y):
    pyro.sample("side", dist.Bernoulli(0.5))
    model(y)


def coin_guide(y):
    pyro.sample("side", dist.Bernoulli(pyro.param("p", torch.tensor(0.5), constraint=dist.constraints.unit_interval)))
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1))


def minibatches(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 3, subsample_size=2) as chosen:
        pyro.sample("y", dist.Normal(loc, 1.0), obs=y[chosen])


def branching(y):
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z if z > 0 else -z, 1.0).expand([3]).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("program", "guide", "says"),
    [
        (gammas, gamma_guide, r"^estimator: on frozen noise, the gradient of shape is not the derivative of the loss"),
        (coins, coin_guide, r"^optimizer = 'lbfgs': needs draws that are .* those of side are not; .*clipped_adam"),
        (
            minibatches,
            "auto_normal",
            r"^optimizer = 'lbfgs': needs all of the data in every evaluation, .* minibatches",
        ),
        (branching, "auto_normal", r"^optimizer = 'lbfgs': .* cannot: .*branches on the value of a tensor; use"),
    ],
)
def test_programs_that_are_no_fixed_function_are_refused(program, guide, says):
    with pytest.raises(ConfigError, match=says):
        sweepvi.fit(program, (DATA,), guide=guide, optimizer="lbfgs", **QUICK)


@pytest.mark.parametrize(
    "name", [name for name in registry.names("estimator") if name not in ("trace_enum", "trace_tmc")]
)
def test_estimators_say_whether_their_gradient_is_the_derivative_of_their_loss(name):
    made = api.recipe_from(model, (DATA,), estimator=name, engine=ENGINE)
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        engine = start(made, isolation)
        found = captured(engine)
        objective = FrozenObjective(DrawnLosses(found, engine.estimator_numbers, 8).for_draws(8), 0, 8)
        if made.estimator.pathwise:
            demand_derivative(objective, found, "lbfgs")
        else:
            with pytest.raises(ConfigError, match="is not the derivative of the loss"):
                demand_derivative(objective, found, "lbfgs")


def test_the_objective_does_not_depend_on_how_many_draws_are_evaluated_at_a_time():
    made = api.recipe_from(model, (DATA,), engine=ENGINE)
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        found = captured(start(made, isolation))
        direction = torch.linspace(-1.0, 1.0, len(found.start))
        parts = []
        for each in (5, 12):
            objective = FrozenObjective(DrawnLosses(found, {}, each).for_draws(each), 3, 12)
            value, gradient = objective(found.start)
            parts.append(torch.cat([torch.tensor([value]), gradient, objective.hessian_times(found.start, direction)]))
        torch.testing.assert_close(*parts, rtol=1e-12, atol=1e-12)
        step = 1e-5 * direction
        by_differences = (objective(found.start + step)[1] - objective(found.start - step)[1]) / 2e-5
        torch.testing.assert_close(parts[0][-len(direction) :], by_differences, rtol=1e-6, atol=1e-6)
