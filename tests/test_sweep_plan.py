"""Plans: which points a command line means, and that the configuration of each is what Hydra composes for it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweepvi import config, preflight, recipe, registry
from sweepvi.command import parse
from sweepvi.config.overrides import quoted
from sweepvi.errors import ConfigError

QUICK = ["model=eight_schools", "engine.steps=30", "engine.score_draws=5"]
THREE = "optimizer=clipped_adam,dct_adam,adagrad_rmsprop"
MINE = "mine.py"
PROGRAM = """
import pyro, pyro.distributions as dist, torch

data = {"x": torch.zeros(3)}

def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

def other(x):
    mean = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
"""


def planned(*words):
    return preflight.planned(parse(["-m", *QUICK, *words]))[0]


def names(plan, **chosen):
    return [dimension.name for dimension in plan.dimensions(chosen)]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder of the user's options, as a flag; it is the current folder's."""
    monkeypatch.chdir(tmp_path)
    files = {
        "mine/optimizer/careful.yaml": "name: clipped_adam\nlr: 0.001\nsearch: {lr: 'interval(0.001, 0.1)'}\n",
        "mine/optimizer/plain.yaml": "name: adam\nlr: 0.001\n",
        "mine/scheduler/follows.yaml": "name: cosine\nsteps: ${engine.steps}\n",
        "mine/experiment/one.yaml": "# @package _global_\ndefaults:\n  - override /optimizer: sgd\nengine: {seed: 7}\n",
        "mine/experiment/two.yaml": "# @package _global_\nsweep: {seed: 5}\noptimizer: {lr: 0.5}\n",
        "mine/sweep/ready.yaml": "n_trials: 4\nspace: {optimizer: 'adam,sgd', optimizer.lr: 'interval(0.1, 1)'}\n",
        MINE: PROGRAM,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return ["--config-dir", "mine"]


# The configuration of a point

SPACES = [
    [THREE, "optimizer.lr=1,0.1"],
    [THREE, "guide=auto_normal,auto_low_rank_multivariate_normal", "guide.rank=1,2", "guide.init_scale=0.1,1"],
    ["optimizer.betas=[0.9,0.99],[0.5,0.999]", "optimizer.clip.norm=null,10,2.5"],
    ["optimizer.clip={norm:1},{value:2}", "engine=auto,lanes,eager"],
    ["partition=loc_scale,single", "partition.scale.lr_factor=0.1,1", "partition.loc.scheduler=null,{name:cosine}"],
    ["partition=loc_scale", "partition.loc.optimizer.lr=0.1,1", "partition.scale.frozen=true,false"],
    [
        "scheduler=torch,constant",
        "scheduler.scheduler=choice(ExponentialLR)",
        "scheduler.arguments={gamma:0.9},{gamma:0.8}",
    ],
    ["experiment=eight_schools_float64,null", "optimizer.lr=0.1,1"],
    ["engine.seed=range(0,3)", "engine.dtype=float32,float64", "engine.steps=10,20"],
]


@pytest.mark.parametrize("words", SPACES, ids=" ".join)
def test_the_configuration_of_every_point_is_what_hydra_composes(words):
    plan = planned(*words)
    assert plan.grid
    points = plan.points()
    assert len(points) > 1
    for params in points:
        assert plan.configuration(params) == composed(plan, params)


def composed(plan, params, *extra):
    """The configuration that a single run of a point has."""
    chosen = {choice.key: choice.value(params[choice.name]) for choice in plan.choices}
    values = [f"{group}={'null' if option is None else option}" for group, option in chosen.items()]
    values += [f"{one.key}={quoted(one.value(params[one.name]))}" for one in plan.dimensions(chosen)]
    made = config.compose([*plan.overrides, *values], Path("mine") if extra else None)
    assert made.problems == []
    nodes = recipe.build(made.config).config
    restarts = {"restarts": 1} if "restarts" in nodes["engine"] else {}
    return {**nodes, "engine": {**nodes["engine"], **restarts}}


def test_the_configuration_of_sampled_points_is_what_hydra_composes(mine):
    plan = planned(*mine, "optimizer=careful,plain,sgd", "sweep.n_trials=9", "engine.steps=int(interval(5,50))")
    assert not plan.grid
    for option, lr in (("careful", 0.01), ("plain", None), ("sgd", 1e-3)):
        params = {"optimizer": option, "engine.steps": 7, f"optimizer.lr ({option})": lr}
        params = {name: value for name, value in params.items() if value is not None}
        found = plan.configuration(params)
        assert found == composed(plan, params, "mine")
        assert found["optimizer"]["lr"] == (0.001 if lr is None else lr)
        assert found["engine"]["steps"] == 7


def test_values_that_refer_to_others_follow_them(mine):
    plan = planned(*mine, "scheduler=follows,constant", "engine.steps=10,20")
    found = {}
    for params in plan.points():
        made = plan.configuration(params)
        assert made == composed(plan, params, "mine")
        found[made["scheduler"]["name"], made["engine"]["steps"]] = made["scheduler"].get("steps")
    assert found == {("cosine", 10): 10, ("cosine", 20): 20, ("constant", 10): None, ("constant", 20): None}


def test_a_configuration_may_be_changed_without_changing_others():
    plan = planned("optimizer.lr=0.1,0.2")
    first, second = plan.points()
    before = json.dumps(plan.configuration(second))
    made = plan.configuration(first)
    made["optimizer"]["betas"].append(3)
    made["engine"]["seed"] = -1
    made["model"].clear()
    assert json.dumps(plan.configuration(second)) == before


def test_a_configuration_takes_no_composition_and_no_time(monkeypatch):
    plan = planned(THREE, "optimizer.lr=tag(log,interval(1e-4,1e-1))", "guide.init_scale=0.1,1", "sweep.n_trials=9")
    monkeypatch.setattr(config, "compose", None)
    params = {"optimizer": "dct_adam", "optimizer.lr": 0.01, "guide.init_scale": 1}
    plan.configuration(params)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        plan.configuration(params)
        times.append(time.perf_counter() - start)
    # Measured: 0.2 ms; a composition takes 60.
    assert min(times) < 0.002


def test_each_option_is_composed_once(monkeypatch):
    made = []
    compose = config.compose
    monkeypatch.setattr(
        config, "compose", lambda overrides, *rest: (made.append(overrides), compose(overrides, *rest))[1]
    )
    plan = planned(THREE, "scheduler=constant,cosine,exponential,linear", "engine.seed=0,1")
    assert len(plan.points()) == 24
    # Four that have each option, one to learn the settings of the sweep, and Hydra's own.
    assert len(made) <= 6


def test_structures_beyond_the_first_are_composed_when_they_are_needed(monkeypatch):
    tried = []
    monkeypatch.setattr("sweepvi.engine.trial_run", lambda made: tried.append(made))
    plan = planned("optimizer=*", "scheduler=glob(*,exclude=[torch,sequential,product,multistep])", "sweep.n_trials=9")
    assert len(tried) == 64
    assert len(plan._space._structures) == 64
    # The second has no step size to search.
    for own in ({"optimizer": "sgd", "optimizer.lr (sgd)": 1e-4}, {"optimizer": "schedule_free_prodigy"}):
        params = {**own, "scheduler": "warmup"}
        assert names(plan, optimizer=own["optimizer"], scheduler="warmup") == list(own)[1:]
        assert plan.configuration(params) == composed(plan, params)


# Which points there are


@pytest.mark.parametrize(
    "words",
    [
        ["engine.seed=0,1", "optimizer=adam,sgd", "optimizer.lr=0.1,0.2"],
        ["optimizer.lr=0.2,0.1", "engine.seed=range(3)"],
        ["engine.seed=3,1,2", "guide.init_scale=range(0.25,1,0.25)", "optimizer=sgd,adam"],
    ],
    ids=" ".join,
)
def test_a_grid_is_in_hydras_order(words):
    plan = planned(*words)
    ours = [
        {key: str(value) for key, value in params.items() if "." in key or key == "optimizer"}
        for params in plan.points()
    ]
    [theirs] = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
    assert ours == [dict(text.split("=") for text in point) for point in theirs]


def test_a_key_counts_where_an_option_has_it():
    plan = planned("optimizer=adagrad_rmsprop,adam,sgd", "optimizer.momentum=0,0.9", "optimizer.lr=0.1,0.2")
    assert names(plan, optimizer="adagrad_rmsprop") == []
    assert names(plan, optimizer="adam") == ["optimizer.lr"]
    assert names(plan, optimizer="sgd") == ["optimizer.momentum", "optimizer.lr"]
    assert len(plan.points()) == 1 + 2 + 4
    assert plan.points()[0] == {"optimizer": "adagrad_rmsprop"}


def test_values_that_are_given_twice_run_once():
    assert len(planned("engine.seed=0,1,0").points()) == 2


def test_shuffled_values_come_in_an_order_that_the_seed_fixes():
    orders = [
        [params["engine.seed"] for params in planned("engine.seed=shuffle(range(20))", f"sweep.seed={seed}").points()]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == list(range(20)) != orders[0]


def test_a_grid_by_name_is_cut_to_the_number_of_trials():
    plan = planned("engine.seed=range(9)", "sweep.sampler=grid", "sweep.n_trials=4")
    assert plan.grid
    assert [params["engine.seed"] for params in plan.points()] == [0, 1, 2, 3]


def test_lists_with_a_number_of_trials_are_sampled():
    plan = planned("engine.seed=range(9)", "optimizer=adam,sgd", "sweep.n_trials=4")
    assert not plan.grid
    assert [choice.distribution for choice in plan.choices] == [CategoricalDistribution(["adam", "sgd"])]
    assert plan.dimensions({"optimizer": "adam"})[0].distribution == IntDistribution(0, 8)


def test_groups_and_paths_of_the_users_own_are_searched(mine):
    plan = planned(*mine, "model=custom", f"model.path={MINE}:model,{MINE}:other", f"model.data={MINE}:data")
    assert [plan.configuration(params)["model"]["path"] for params in plan.points()] == [
        f"{MINE}:model",
        f"{MINE}:other",
    ]
    assert planned(*mine, "optimizer=glob(*l*)").choices[0].distribution.choices[:2] == ("adadelta", "careful")
    del sys.modules["_sweepvi_mine"]


# What options say of themselves


def test_search_nodes_count_for_the_option_chosen():
    plan = planned("optimizer=adam,adagrad_rmsprop,schedule_free_prodigy", "sweep.n_trials=9")
    assert names(plan, optimizer="adam") == ["optimizer.lr (adam)"]
    assert names(plan, optimizer="adagrad_rmsprop") == ["optimizer.eta (adagrad_rmsprop)"]
    assert names(plan, optimizer="schedule_free_prodigy") == []
    [lr] = plan.dimensions({"optimizer": "adam"})
    assert (lr.key, lr.distribution) == ("optimizer.lr", FloatDistribution(1e-3, 0.3, log=True))
    assert names(planned("sweep.n_trials=9", "optimizer=adam")) == ["optimizer.lr"]


@pytest.mark.parametrize(
    "given", ["optimizer.lr=0.1", "optimizer.lr=0.1,0.2", "~optimizer.search", "optimizer.search={}"]
)
def test_what_the_command_line_says_comes_before_search_nodes(given):
    plan = planned("optimizer=adam,sgd", "sweep.n_trials=9", given)
    assert names(plan, optimizer="adam") == (["optimizer.lr"] if "," in given else [])


def test_grids_ignore_search_nodes():
    assert planned("optimizer=adam,sgd").points() == [{"optimizer": "adam"}, {"optimizer": "sgd"}]


def test_a_search_node_may_be_given_on_the_command_line():
    plan = planned("optimizer=adam", "sweep.n_trials=9", "optimizer.search={eps:'interval(1e-8,1e-4)'}")
    assert names(plan) == ["optimizer.eps"]


def test_experiments_are_searched_as_a_whole(mine):
    plan = planned(*mine, "experiment=one,two", "sweep.n_trials=9")
    assert plan.dimensions({"experiment": "one"})[0].name == "optimizer.lr (sgd)"
    assert plan.dimensions({"experiment": "two"})[0].name == "optimizer.lr (clipped_adam)"
    made = plan.configuration({"experiment": "one", "optimizer.lr (sgd)": 1e-3})
    assert (made["optimizer"]["name"], made["optimizer"]["lr"], made["engine"]["seed"]) == ("sgd", 1e-3, 7)


# Ready spaces


@pytest.mark.parametrize("name", [name for name in config.options("sweep") if name not in ("default", "auto")])
def test_ready_spaces(name):
    plan = planned(f"sweep={name}")
    assert not plan.grid
    assert plan.settings.n_trials
    assert all("." in key or key in config.groups() for key in plan.settings.space)
    for values in itertools.product(*(choice.domain.values for choice in plan.choices)):
        params = {choice.name: value for choice, value in zip(plan.choices, values, strict=True)}
        for one in plan.dimensions(dict(zip([choice.key for choice in plan.choices], values, strict=True))):
            params[one.name] = one.domain.ends()[-1]
        assert recipe.check(plan.configuration(params)) == []


def test_the_command_line_comes_before_a_ready_space(mine):
    ready = planned(*mine, "sweep=ready")
    assert [choice.distribution.choices for choice in ready.choices] == [("adam", "sgd")]
    assert ready.dimensions({"optimizer": "sgd"})[0].distribution == FloatDistribution(0.1, 1.0)
    one = planned(*mine, "sweep=ready", "optimizer=sgd")
    assert one.choices == []
    assert [dimension.distribution for dimension in one.dimensions({})] == [FloatDistribution(0.1, 1.0)]
    other = planned(*mine, "sweep=ready", "optimizer=adam,adamw", "optimizer.lr=0.5", "sweep.n_trials=7")
    assert other.choices[0].distribution.choices == ("adam", "adamw")
    assert names(other, optimizer="adam") == []
    assert other.settings.n_trials == 7


# Where a study starts, and what makes it itself


def test_the_defaults_are_a_point_where_they_lie_in_the_space():
    sampled = "sweep.n_trials=9"
    plan = planned(THREE, "optimizer.lr=tag(log,interval(1e-4,1e-1))", sampled)
    assert plan.defaults() == {"optimizer": "clipped_adam", "optimizer.lr": 0.02}
    assert plan.configuration(plan.defaults()) == composed(plan, plan.defaults())
    assert planned("optimizer=adam,sgd", sampled).defaults() is None
    assert planned("optimizer.lr=interval(0.1,1)", sampled).defaults() is None
    assert planned("optimizer=adam", "optimizer.lr=0.3", "engine.seed=0,1", sampled).defaults() == {"engine.seed": 0}
    betas = planned("optimizer.betas=[0.9,0.999],[0.5,0.9]", "optimizer.lr=1", sampled).defaults()
    assert betas == {"optimizer.betas": "[0.9,0.999]"}


def test_settings_to_try_first_are_points():
    words = [
        "optimizer=adam,sgd",
        "sweep.n_trials=9",
        "sweep.enqueue=[{optimizer:sgd,optimizer.lr:0.001},{optimizer:adam}]",
    ]
    assert planned(*words).enqueued() == [{"optimizer": "sgd", "optimizer.lr (sgd)": 0.001}, {"optimizer": "adam"}]


SAME = [
    ["sweep.n_trials=10"],
    ["workers.cpus=1"],
    ["sweep.finalists=1"],
    ["engine.log_every=7"],
    ["sweep.max_grid=99"],
    ["hydra.sweep.dir=elsewhere"],
]
OTHER = [
    ["sweep.seed=1"],
    ["sweep.objective=[k_hat]"],
    ["sweep.sampler=random"],
    ["engine.steps=31"],
    ["guide=auto_diagonal_normal"],
    ["optimizer.eps=1e-7"],
    ["optimizer.eps=1e-7,1e-8"],
    ["optimizer.lr=interval(0.1,1)"],
    ["optimizer=adam,sgd,adamw"],
]


@pytest.mark.parametrize(("words", "same"), [(w, True) for w in SAME] + [(w, False) for w in OTHER], ids=str)
def test_what_makes_a_study_another(words, same):
    base = ["optimizer=adam,radam", "sweep.n_trials=9"]
    changed = [text for text in base if text.partition("=")[0] not in {word.partition("=")[0] for word in words}]
    before, after = planned(*base).identity(), planned(*changed, *words).identity()
    assert (before == after) == same
    assert json.loads(json.dumps(before)) == before


def test_other_data_is_another_study(mine):
    words = [*mine, "model=custom", f"model.path={MINE}:model", f"model.data={MINE}:data", "engine.seed=0,1"]
    before = planned(*words).identity()
    assert planned(*words).identity() == before
    Path(MINE).write_text(PROGRAM.replace("torch.zeros(3)", "torch.ones(3)"))
    after = planned(*words).identity()
    assert after["data"] != before["data"]
    assert {**after, "data": 0} == {**before, "data": 0}
    del sys.modules["_sweepvi_mine"]


def test_grids_and_sampled_studies_are_different_studies():
    assert planned("engine.seed=0,1").identity() != planned("engine.seed=0,1", "sweep.n_trials=2").identity()


def test_an_earlier_run_is_what_is_searched_around(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = config.compose([*QUICK, "optimizer=sgd", "guide=auto_delta"]).config
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(json.dumps(base))
    plan, _ = preflight.planned(parse(["-m", "rerun=run", "optimizer.lr=0.1,0.2"]))
    made = plan.configuration(plan.points()[1])
    assert (made["optimizer"]["name"], made["optimizer"]["lr"], made["guide"]["name"]) == ("sgd", 0.2, "auto_delta")


def test_every_problem_is_told_at_once():
    words = ["optimizer.lr=interval(-1,1)", "engine.seed=range(3,3)", "sweep.sampler=best", "guide=auto_nrmal,own"]
    with pytest.raises(ConfigError) as raised:
        planned(*words, "sweep.n_trials=9")
    keys = {problem.key for problem in raised.value.problems}
    assert keys >= {"optimizer.lr", "engine.seed=range(3,3)", "sweep.sampler", "guide"}


def test_groups_are_all_there_is():
    assert set(planned("engine.seed=0,1").configuration({"engine.seed": 1})) == set(registry.GROUPS)


def test_planning_needs_no_torch_before_it_checks():
    code = (
        "import sys; import sweepvi.sweep.plan, sweepvi.sweep.planning, sweepvi.sweep.settings;"
        "from sweepvi.sweep.grammar import domain_of; domain_of('a=1,2');"
        "print([name for name in ('torch', 'pyro', 'pandas', 'plotly') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
