"""``sweepvi.tune``: sweeps of models that are Python objects."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.preset import PORTFOLIO
from sweepvi.sweep.python import plan_from_python

DATA = {"x": torch.tensor([0.5, 1.0, 2.0])}


pytestmark = pytest.mark.usefixtures("ready_python")


def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


@pytest.fixture(scope="module")
def tuned():
    return sweepvi.tune(
        model,
        kwargs=DATA,
        space={"optimizer": ["adam", "clipped_adam"], "optimizer.lr": "tag(log,interval(1e-3,0.3))"},
        n_trials=12,
        sweep={"sampler": "random", "finalists": 1, "final_draws": 500},
        workers={"cpus": 1},
        steps=90,
        score_draws=100,
    )


def test_a_function_is_tuned_and_its_best_settings_repeat_the_score(tuned):
    assert tuned.status == "finished"
    again = sweepvi.fit(model, kwargs=DATA, **tuned.best.settings)
    assert again.elbo == pytest.approx(tuned.best.value, rel=1e-6)
    assert set(tuned.best.params) == {"optimizer", "optimizer.lr"}


def test_trials_are_a_table_and_optunas_study(tuned):
    assert len(tuned.trials) == 12
    assert tuned.study.best_trial.number == tuned.best.trial.number
    assert tuned.study.best_value == tuned.best.value


def test_a_ready_sweep_races_presets_and_leaves_what_is_chosen():
    found = plan_from_python(
        model, kwargs=DATA, space={}, sweep={"name": "auto", "finalists": 2}, engine={"dtype": "float64"}
    )
    assert [chosen["preset"] for chosen in found._space.structures()] == list(PORTFOLIO)
    assert (found.settings.pruner, found.settings.finalists) == ("median", 2)
    guides = {found._space.structure(chosen).nodes["guide"]["name"] for chosen in found._space.structures()}
    assert {"auto_normal", "auto_multivariate_normal"} < guides
    chosen = plan_from_python(model, kwargs=DATA, space={}, sweep={"name": "auto"}, optimizer="sgd")
    assert {chosen._space.structure(each).nodes["optimizer"]["name"] for each in chosen._space.structures()} == {"sgd"}
    with pytest.raises(sweepvi.ConfigError, match="nothing_like_it"):
        sweepvi.tune(model, kwargs=DATA, sweep="nothing_like_it")
    with pytest.raises(sweepvi.ConfigError, match="nothing is searched"):
        sweepvi.tune(model, kwargs=DATA)


def test_everything_wrong_with_it_is_said_at_once():
    with pytest.raises(sweepvi.ConfigError, match="n_trials") as caught:
        sweepvi.tune(model, kwargs=DATA, space={"optimizer.lr": "interval(0.1,1)", "optimizer.rate": [1.0, 2.0]})
    assert "rate" in str(caught.value)
