"""Plans of Python calls: models, guides and networks as objects, and the space as a mapping."""

from __future__ import annotations

import cloudpickle
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from pyro.infer.autoguide import AutoNormal

from sweepvi import api, engine, preflight, recipe
from sweepvi.command import parse
from sweepvi.errors import ConfigError
from sweepvi.optim.adam import AdamRule
from sweepvi.schedule.warmup import Warmup
from sweepvi.sweep.python import plan_from_python

DATA = {"x": torch.zeros(3)}
DEFAULTS = {
    "guide": "auto_normal",
    "estimator": "trace",
    "optimizer": "clipped_adam",
    "scheduler": "constant",
    "partition": "single",
    "engine": {"name": "auto", "steps": 30, "score_draws": 5},
}
LR = "tag(log,interval(1e-3,0.1))"


def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    pyro.sample("mean", dist.Normal(loc, 1.0))


def planned(space, n_trials=9, **components):
    return plan_from_python(model, kwargs=DATA, space=space, sweep={"n_trials": n_trials}, **{**DEFAULTS, **components})


def names(plan, **chosen):
    return [one.name for one in plan.dimensions(chosen)]


def test_a_call_and_a_command_line_mean_the_same():
    words = ["model=eight_schools", "engine.steps=30", "engine.score_draws=5", "optimizer=adam,sgd"]
    command, _ = preflight.planned(parse(["-m", *words, f"optimizer.lr={LR}", "sweep.n_trials=9"]))
    space = {"optimizer": "adam,sgd", "optimizer.lr": LR}
    call = plan_from_python("eight_schools", space=space, sweep={"n_trials": 9}, **DEFAULTS)
    assert call.identity() == command.identity()
    params = {"optimizer": "sgd", "optimizer.lr": 0.01}
    assert call.configuration(params) == command.configuration(params)
    assert call.given is None


def test_a_model_and_a_guide_are_sent_as_they_are():
    plan = planned({"optimizer": ["adam", "sgd"], "optimizer.lr": LR}, guide=guide)
    assert plan.choices[0].distribution == CategoricalDistribution(["adam", "sgd"])
    made = plan.configuration({"optimizer": "sgd", "optimizer.lr": 0.01})
    assert made["model"] == {"name": "python", "object": f"{__name__}:model"}
    assert made["guide"] == {"name": "python", "object": f"{__name__}:guide"}
    given = cloudpickle.loads(plan.given)
    assert given.keys() == {"model", "guide"}
    engine.trial_run(recipe.build(made, given))
    one = api.recipe_from(model, (), DATA, **{**DEFAULTS, "guide": guide, "optimizer": {"name": "sgd", "lr": 0.01}})
    assert {**one.config, "engine": {**one.config["engine"], "restarts": 1}} == made


def test_values_of_any_kind():
    space = {
        "optimizer.lr": np.array([0.1, 0.2]),
        "optimizer.betas": [[0.9, 0.99], (0.5, 0.9)],
        "optimizer.eps": [np.float64(1e-8), 1e-4],
        "engine.seed": range(3),
        "scheduler": ["constant", "cosine"],
    }
    plan = planned(space, n_trials=None)
    assert len(plan.points()) == 2 * 2 * 2 * 3 * 2
    made = plan.configuration(plan.points()[-1])
    assert (made["optimizer"]["lr"], made["optimizer"]["betas"], made["optimizer"]["eps"]) == (0.2, [0.5, 0.9], 1e-4)
    assert (made["engine"]["seed"], made["scheduler"]["name"]) == (2, "cosine")


def test_components_as_mappings_and_objects():
    sampled = planned({"guide.init_scale": "interval(0.1,1)"}, optimizer={"name": "adam", "eps": 1e-7})
    assert names(sampled) == ["guide.init_scale", "optimizer.lr"]
    fixed = planned({"guide.init_scale": "interval(0.1,1)"}, optimizer=AdamRule(lr=0.5))
    assert names(fixed) == ["guide.init_scale"]
    assert fixed.configuration({"guide.init_scale": 0.1})["optimizer"]["lr"] == 0.5
    parts = {"name": "sequential", "parts": [Warmup(steps=5), {"name": "cosine"}], "milestones": [5]}
    nested = planned({"optimizer.lr": LR}, scheduler=parts).configuration({"optimizer.lr": 0.01})
    assert [part["name"] for part in nested["scheduler"]["parts"]] == ["warmup", "cosine"]
    own = planned({"guide.init_scale": "interval(0.1,1)"}, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    assert names(own) == ["guide.init_scale"]
    engine.trial_run(recipe.build(own.configuration({"guide.init_scale": 0.1}), cloudpickle.loads(own.given)))


def test_settings_are_those_of_the_groups():
    enqueued = [{"optimizer.lr": 0.01}]
    plan = plan_from_python(
        model,
        kwargs=DATA,
        space={"optimizer.lr": LR},
        sweep={"n_trials": 9, "objective": ["k_hat", "seconds"], "enqueue": enqueued, "storage": "sqlite:///a b.db"},
        workers={"cpus": 1, "gpus": [0, 1]},
        **DEFAULTS,
    )
    assert (plan.settings.objective, plan.settings.storage) == (("k_hat", "seconds"), "sqlite:///a b.db")
    assert (plan.workers.cpus, plan.workers.gpus) == (1, (0, 1))
    assert plan.enqueued() == enqueued
    assert plan.dimensions({})[0].distribution == FloatDistribution(1e-3, 0.1, log=True)


class Unsendable:
    def __call__(self, x):
        guide(x)

    def __reduce__(self):
        raise TypeError("stays here")


@pytest.mark.parametrize(
    ("space", "components", "says"),
    [
        ({}, {"optimizer": "schedule_free_prodigy"}, ["nothing is searched"]),
        ({"optimizer.lrr": [1, 2]}, {}, ["optimizer.lrr = 1", "did you mean lr"]),
        ({"optimizer.lr": 3}, {}, ["optimizer.lr = 3", "searches nothing"]),
        ({"optimizer.lr": "0.1"}, {}, ["optimizer.lr = '0.1'", "searches nothing"]),
        ({"lr": [1, 2]}, {}, ["lr=choice(1,2)", "no such config group"]),
        ({"optimizer.lr": "interval(-1,1)"}, {}, ["optimizer.lr = -1.0", "a number > 0"]),
        ({"optimizer.lr": "tag(log,interval(0,1))"}, {}, ["bounds > 0"]),
        ({"optimizer.lr": []}, {}, ["optimizer.lr = []", "searches nothing"]),
        ({"guide.init_scale": [1, 2]}, {"guide": guide}, ["guide.init_scale", "guide is a Python object"]),
        ({"model": ["radon", "eight_schools"]}, {}, ["model", "Python object"]),
        ({"optimizer.lr": LR}, {"guide": 3}, ["guide: must be a name"]),
        ({"optimizer.lr": LR}, {"engine": {"name": "auto", "stepz": 3}}, ["engine.stepz = 3", "did you mean steps?"]),
        ({"optimizer.lr": LR}, {"guide": Unsendable()}, ["cannot be sent to workers: TypeError: stays here"]),
        ({"guide": ["auto_normal", "auto_nrmal"]}, {}, ["guide = 'auto_nrmal'", "did you mean auto_normal"]),
        ({"optimizer": [AdamRule(), "sgd"]}, {}, ["optimizer"]),
    ],
)
def test_bad_calls(space, components, says):
    with pytest.raises(ConfigError) as raised:
        planned(space, **components)
    assert [fragment for fragment in says if fragment not in str(raised.value)] == []


def test_an_autoguides_class():
    plan = planned({"optimizer.lr": LR}, guide=AutoNormal)
    made = plan.configuration({"optimizer.lr": 0.01})
    engine.trial_run(recipe.build(made, cloudpickle.loads(plan.given)))
