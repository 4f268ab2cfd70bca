"""Partitions: which group a parameter is in, what is different there, and what is said when it cannot be."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoIAFNormal, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import constraints

import sweepvi
from sweepvi import registry
from sweepvi.errors import ConfigError
from sweepvi.partition.kinds import kind_of, network_weights

X = torch.tensor([1.0, 2.0, 3.0])
QUICK = {"steps": 12, "score_draws": 3}


def model(x):
    loc = pyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, scale), obs=x)


def partition(name, **keys):
    return registry.build("partition", {"name": name, **keys})


def fit(**how):
    return sweepvi.fit(model, (X,), **{**QUICK, **how})


def apart(result, other):
    """Names of the parameters that two fits from the same start disagree on."""
    return {name for name in result.params if not torch.equal(result.params[name], other.params[name])}


# Kinds.

REAL, POSITIVE = constraints.real, constraints.positive


@pytest.mark.parametrize(
    ("name", "constraint", "in_network", "kind"),
    [
        ("AutoNormal.locs.sigma", REAL, False, "loc"),
        ("AutoNormal.scales.mu", POSITIVE, False, "scale"),
        ("auto_loc", REAL, False, "loc"),
        ("q_scale_tril", constraints.lower_cholesky, False, "scale"),
        ("rate", POSITIVE, False, "scale"),
        ("rate", constraints.independent(POSITIVE, 1), False, "scale"),
        ("rate", constraints.unit_interval, False, "rest"),
        ("weights", REAL, False, "rest"),
        ("location", REAL, False, "rest"),
        ("encoder$$$layer.weight", REAL, False, "nn"),
        ("encoder.layer.weight", REAL, True, "nn"),
        ("baseline_net$$$weight", REAL, True, "baseline"),
        ("bl_predict.weight", REAL, True, "baseline"),
        ("able", REAL, False, "rest"),
    ],
)
def test_kinds(name, constraint, in_network, kind):
    assert kind_of(name, constraint, in_network) == kind


@pytest.mark.parametrize(
    ("guide", "kinds"),
    [
        (AutoNormal, {"loc", "scale"}),
        (AutoMultivariateNormal, {"loc", "scale"}),
        (lambda m: AutoIAFNormal(m, hidden_dim=[4]), {"nn"}),
    ],
)
def test_kinds_of_autoguides(guide, kinds):
    pyro.clear_param_store()
    made = guide(model)
    made(X)
    store, weights = pyro.get_param_store(), network_weights([made])
    found = {kind_of(name, REAL, id(store[name].unconstrained()) in weights) for name in store}
    pyro.clear_param_store()
    assert found == kinds


# Which group.

KINDS = {"a.loc": "loc", "a.scale": "scale", "b.loc": "loc", "net.weight": "nn", "bl_net": "baseline", "c": "rest"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (partition("single"), dict.fromkeys(KINDS, "all")),
        (
            partition("loc_scale"),
            {
                "a.loc": "loc",
                "a.scale": "scale",
                "b.loc": "loc",
                "net.weight": "rest",
                "bl_net": "rest",
                "c": "rest",
            },
        ),
        (partition("nn_variational"), {**dict.fromkeys(KINDS, "variational"), "net.weight": "nn"}),
        (partition("baseline_networks"), {**dict.fromkeys(KINDS, "rest"), "bl_net": "baseline"}),
        (
            partition(
                "groups",
                groups={
                    "first": {"glob": ["a.*", "c"]},
                    "nets": {"regex": "net"},
                    "locs": {"kind": "loc"},
                    "others": {"kind": "rest"},
                },
            ),
            {
                "a.loc": "first",
                "a.scale": "first",
                "b.loc": "locs",
                "net.weight": "nets",
                "bl_net": "nets",
                "c": "first",
            },
        ),
    ],
    ids=["single", "loc_scale", "nn_variational", "baseline_networks", "groups"],
)
def test_a_parameter_is_in_the_first_group_that_matches(made, expected):
    assert made.assign(KINDS) == expected


def test_what_no_group_takes_is_an_error_with_both_sides():
    with pytest.raises(ConfigError) as caught:
        partition("groups", groups={"locs": {"kind": "loc"}}).assign(KINDS)
    message = str(caught.value)
    for part in ("a.scale (scale)", "net.weight (nn)", "c (rest)", "locs (kind loc)", "kind: rest"):
        assert part in message
    assert "b.loc (loc)" not in message


def test_an_empty_group_is_an_error_with_both_sides():
    groups = {"slow": {"glob": "*.scals.*", "lr_factor": 0.1}, "others": {"kind": "rest"}}
    with pytest.raises(ConfigError) as caught:
        fit(partition={"name": "groups", "groups": groups})
    message = str(caught.value)
    for part in ("partition.groups.slow", "*.scals.*", "AutoNormal.scales.mean (scale)"):
        assert part in message


def test_a_preset_may_have_empty_groups_unless_something_is_set_for_them():
    assert fit(partition="nn_variational").status == "finished"
    with pytest.raises(ConfigError, match=r"partition\.nn.*takes no parameter"):
        fit(partition={"name": "nn_variational", "nn": {"lr_factor": 0.5}})


# What is different.


def test_one_group_equals_no_partition():
    assert apart(fit(partition="single"), fit(partition="loc_scale")) == set()


def test_a_groups_settings_are_its_own():
    plain = fit()
    slower = fit(partition={"name": "loc_scale", "scale": {"optimizer": {"lr": 0.001}}})
    factor = fit(partition={"name": "loc_scale", "scale": {"lr_factor": 0.05}})
    assert slower.rates["scale"].tolist() == pytest.approx([0.001] * 12)
    assert slower.rates["loc"].tolist() == plain.rates["all"].tolist() == [0.02] * 12
    assert apart(slower, factor) == set()
    first = fit(steps=1)
    moved = fit(steps=1, partition={"name": "loc_scale", "scale": {"optimizer": {"lr": 0.001}}})
    assert apart(first, moved) == {"AutoNormal.scales.mean", "AutoNormal.scales.noise"}


def test_a_frozen_group_stays_as_it_starts():
    frozen = fit(partition={"name": "loc_scale", "scale": {"frozen": True}})
    start = fit(steps=1, partition={"name": "loc_scale", "scale": {"frozen": True}, "loc": {"frozen": True}})
    assert apart(frozen, start) == {"AutoNormal.locs.mean", "AutoNormal.locs.noise"}
    assert frozen.rates.keys() == {"loc"}
    assert start.rates == {}


def test_another_optimizer_altogether():
    made = fit(partition={"name": "loc_scale", "scale": {"optimizer": {"name": "sgd", "lr": 0.003}}}, steps=1)
    plain, gradient = fit(steps=1), {}

    def record(groups):
        class Recorder(torch.optim.SGD):
            def step(self, closure=None):
                gradient.update({id(p): p.grad.clone() for g in self.param_groups for p in g["params"]})

        return Recorder(groups, lr=1.0)

    fit(steps=1, optimizer=record)
    assert apart(made, plain) == {"AutoNormal.scales.mean", "AutoNormal.scales.noise"}
    start = fit(steps=1, partition={"name": "groups", "groups": {"all": {"kind": "rest", "frozen": True}}})
    names = list(start.params)
    for name, grad in zip(names, gradient.values(), strict=True):
        if "scales" in name:
            inverse = constraints_inverse(start.params[name]) - 0.003 * grad
            torch.testing.assert_close(made.params[name], torch.nn.functional.softplus(inverse))


def constraints_inverse(value):
    return value + (-(-value).expm1()).log()


def test_a_groups_schedule_is_its_own():
    groups = {"name": "loc_scale", "scale": {"scheduler": {"name": "exponential", "gamma": 0.5}}}
    made = fit(partition=groups, scheduler={"name": "exponential", "gamma": 0.9}, steps=4)
    assert made.rates["scale"].tolist() == pytest.approx([0.02 * 0.5**k for k in range(4)])
    assert made.rates["loc"].tolist() == pytest.approx([0.02 * 0.9**k for k in range(4)])


def test_a_groups_clipping_is_its_own():
    sgd = {"name": "sgd", "lr": 1.0}
    groups = {"name": "loc_scale", "loc": {"optimizer": {"clip": {"value": 1e-6}}}}
    start = fit(steps=1, partition={"name": "groups", "groups": {"all": {"kind": "rest", "frozen": True}}})
    made = fit(steps=1, optimizer=sgd, partition=groups)
    for name in ("AutoNormal.locs.mean", "AutoNormal.locs.noise"):
        torch.testing.assert_close((made.params[name] - start.params[name]).abs(), torch.tensor(1e-6), rtol=0.1, atol=0)


def test_one_bound_on_the_global_norm_holds_for_all_groups_together():
    clipped = {"name": "sgd", "lr": 0.1, "clip": {"global_norm": 0.5}}
    assert apart(fit(optimizer=clipped), fit(optimizer=clipped, partition="loc_scale")) == set()
    for still in ({"clip": {"value": 1e6}}, {"name": "sgd", "lr": 0.1, "clip": {"global_norm": 0.5, "norm": 1e6}}):
        apart_from = apart(
            fit(optimizer=clipped), fit(optimizer=clipped, partition={"name": "loc_scale", "loc": {"optimizer": still}})
        )
        assert bool(apart_from) == ("name" in still)
    own = {"name": "loc_scale", "scale": {"optimizer": {"clip": {"global_norm": 0.5}}}}
    assert apart(fit(optimizer=clipped), fit(optimizer=clipped, partition=own)) != set()


def test_networks_apart():
    net = nn.Linear(1, 1)

    def with_net(x):
        pyro.module("net", net)
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("x", dist.Normal(loc + net(torch.ones(1)), 1.0).to_event(0).expand([len(x)]).to_event(1), obs=x)

    made = sweepvi.fit(
        with_net,
        (X,),
        guide=lambda x: None,
        partition={"name": "nn_variational", "nn": {"optimizer": {"name": "adamw", "lr": 0.005}}},
        **QUICK,
    )
    assert made.rates["nn"].tolist() == pytest.approx([0.005] * 12)
    assert made.rates["variational"].tolist() == pytest.approx([0.02] * 12)


def test_resumes_to_the_last_bit(tmp_path):
    how = {
        "partition": {
            "name": "loc_scale",
            "loc": {"optimizer": {"name": "adam", "amsgrad": True}, "scheduler": "cosine"},
            "scale": {"optimizer": {"name": "rmsprop", "lr": 0.001, "momentum": 0.5}, "lr_factor": 2.0},
        },
        "optimizer": {"name": "clipped_adam", "lrd": 0.99},
    }
    whole = fit(**how)
    crashed = {"n": 0}

    class Stop(sweepvi.engine.Observer):
        def stepped(self, step, loss):
            crashed["n"] = step
            if step == 7:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(**how, folder=tmp_path, progress=Stop(), checkpoint_every=5)
    resumed = fit(**how, folder=tmp_path, resume=True, checkpoint_every=5)
    assert crashed["n"] == 7
    assert apart(whole, resumed) == set()
    torch.testing.assert_close(whole.rates, resumed.rates, rtol=0, atol=0)


# Bad input.


@pytest.mark.parametrize(
    ("node", "key", "said"),
    [
        ({"name": "loc_scale", "scale": {"optimizer": {"lr": -1}}}, "partition.scale.optimizer.lr", "a number > 0"),
        ({"name": "loc_scale", "scale": {"optimizer": {"name": "adm"}}}, "partition.scale.optimizer.name", "adam"),
        ({"name": "loc_scale", "scale": {"optimizer": {"rl": 1}}}, "partition.scale.optimizer.rl", "lr"),
        ({"name": "loc_scale", "scale": {"scheduler": {"name": "cosin"}}}, "partition.scale.scheduler.name", "cosine"),
        ({"name": "loc_scale", "scale": {"lr_factor": 0}}, "partition.scale.lr_factor", "> 0"),
        ({"name": "loc_scale", "scale": {"frozen": True, "lr_factor": 2.0}}, "partition.scale.frozen", "goes with no"),
        ({"name": "loc_scale", "scale": 3}, "partition.scale", "a mapping of optimizer"),
        ({"name": "loc_scale", "scales": {}}, "partition.scales", "scale"),
        ({"name": "groups"}, "partition.groups", "missing"),
        ({"name": "groups", "groups": {}}, "partition.groups", "at least one"),
        ({"name": "groups", "groups": {"a": {}}}, "partition.groups.a.kind", "exactly one of"),
        ({"name": "groups", "groups": {"a": {"glob": "*", "kind": "loc"}}}, "partition.groups.a.kind", "exactly one"),
        ({"name": "groups", "groups": {"a": {"regex": "("}}}, "partition.groups.a.regex", "regular expression"),
        ({"name": "groups", "groups": {"a": {"kind": "locs"}}}, "partition.groups.a.kind", "loc, scale"),
        ({"name": "groups", "groups": {"1": {"kind": "rest"}}}, "partition.groups", "a label is"),
    ],
)
def test_bad_input_names_the_key_and_what_is_valid(node, key, said):
    with pytest.raises(ConfigError) as caught:
        fit(partition=node)
    [problem] = [problem for problem in caught.value.problems if problem.key == key]
    assert said in str(problem)


def test_time_dimensions_are_of_the_groups_own_parameters():
    own = {"name": "dct_adam", "time_dims": {"*.scales.*": -1}}
    with pytest.raises(ConfigError, match=r"partition\.loc\.optimizer\.time_dims.*no such parameter"):
        fit(partition={"name": "loc_scale", "loc": {"optimizer": own}})
    shared = {"name": "dct_adam", "time_dims": {"*.weights": -1}}
    with pytest.raises(ConfigError, match=r"^optimizer\.time_dims.*no such parameter"):
        fit(partition="loc_scale", optimizer=shared)


def test_a_conflict_with_the_fits_own_settings_is_a_problem_of_the_group():
    nesterov = {"name": "sgd", "momentum": 0.9, "nesterov": True}
    with pytest.raises(ConfigError, match=r"partition\.loc\.optimizer\.nesterov.*needs momentum"):
        fit(optimizer=nesterov, partition={"name": "loc_scale", "loc": {"optimizer": {"momentum": 0.0}}})


def test_problems_of_the_fit_and_of_a_group_are_said_at_once():
    node = {"name": "loc_scale", "loc": {"optimizer": {"eps": -1}}}
    with pytest.raises(ConfigError) as caught:
        fit(optimizer={"name": "adam", "lr": -1}, partition=node)
    assert [problem.key for problem in caught.value.problems] == ["optimizer.lr", "partition.loc.optimizer.eps"]


def test_several_problems_in_several_groups_are_said_at_once():
    node = {"name": "loc_scale", "loc": {"optimizer": {"lr": -1}}, "scale": {"optimizer": {"eps": -1}}}
    with pytest.raises(ConfigError) as caught:
        fit(partition=node)
    assert {problem.key for problem in caught.value.problems} == {
        "partition.loc.optimizer.lr",
        "partition.scale.optimizer.eps",
    }


def test_settings_of_a_group_need_an_optimizer_with_settings():
    node = {"name": "loc_scale", "scale": {"optimizer": {"lr": 0.1}}}
    with pytest.raises(ConfigError, match=r"partition\.scale\.optimizer.*must name an optimizer"):
        fit(partition=node, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01))
    assert fit(partition="loc_scale", optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01)).rates.keys() == {
        "loc",
        "scale",
    }
