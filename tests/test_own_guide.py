"""``guide=own``: the guide that a model brings, shipped or the user's; and networks that every fit makes for itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import sweepvi
from sweepvi import config, recipe, runs
from sweepvi.cli import main
from sweepvi.errors import ConfigError

X = torch.linspace(-1.0, 1.0, 12).reshape(6, 2)
QUICK = {"steps": 5, "score_draws": 3}
VAE = f"model.path={Path(__file__).parent / 'programs/vae.py'}:VAE"
DATA = f"model.data={Path(__file__).parent / 'programs/vae.py'}:data"
SHIPPED = ["model=digits_vae", "model.hidden=[16]", "model.batch_size=50"]
USERS = ["model=custom", VAE, DATA]


def run(net, x):
    pyro.module("decoder", net)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)


def approximate(net, x):
    pyro.module("encoder", net)
    scale = pyro.param("scale", torch.tensor(0.5), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(net(x), scale).to_event(1))


class Forward(nn.Module):
    """A network that is called."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(1, 2), nn.Linear(2, 1)

    def forward(self, x):
        run(self.decoder, x)

    def guide(self, x):
        approximate(self.encoder, x)


class Tutorial(nn.Module):
    """The form of Pyro's tutorials: no ``forward``."""

    def __init__(self):
        super().__init__()
        self.decoder, self.encoder = nn.Linear(1, 2), nn.Linear(2, 1)

    def model(self, x):
        run(self.decoder, x)

    def guide(self, x):
        approximate(self.encoder, x)


class Plain:
    """Neither a network nor callable."""

    def __init__(self):
        self.decoder, self.encoder = nn.Linear(1, 2), nn.Linear(2, 1)

    def model(self, x):
        run(self.decoder, x)

    def guide(self, x):
        approximate(self.encoder, x)


class Callable(Plain):
    """Called, though no network."""

    def __call__(self, x):
        run(self.decoder, x)

    model = None


CLASSES = [Forward, Tutorial, Callable, Plain]
every_class = pytest.mark.parametrize("cls", CLASSES)


def fit(model, **how):
    return sweepvi.fit(model, (X,), **{"guide": "own", **QUICK, **how})


def made(cls, seed):
    """What a fit of a class makes for itself."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return cls()


def tensors(programs):
    return {
        f"{name}.{key}": value.clone()
        for name in ("decoder", "encoder")
        for key, value in getattr(programs, name).state_dict().items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def apart(first, second):
    return [name for name in first if not torch.equal(first[name], second[name])]


# A user's model.


@every_class
def test_a_class_is_fitted_with_its_own_guide(cls):
    """As if an instance, made under the fit's seed, were given with its guide."""
    programs = made(cls, 3)
    runs = getattr(programs, "model", None) or programs
    by_hand = fit(runs, guide=programs.guide, seed=3)
    result = fit(cls, seed=3)
    assert result.status == "finished"
    assert torch.equal(result.losses, by_hand.losses)
    assert same(result.params, by_hand.params)
    assert result.elbo == by_hand.elbo


@pytest.mark.parametrize("cls", [Forward, Tutorial, Callable])
def test_an_instance_is_fitted_and_left_as_it_was(cls):
    programs = made(cls, 3)
    before = tensors(programs)
    result = fit(programs, seed=3)
    assert same(tensors(programs), before)
    assert same(result.params, fit(cls, seed=3).params)
    with result.fitted():
        assert len(apart(tensors(programs), before)) == len(before)


def test_a_method_has_its_objects_guide():
    programs = made(Plain, 3)
    assert same(fit(programs.model, seed=3).params, fit(Plain, seed=3).params)


def test_networks_are_registered_once():
    networks = {f"{net}$$${part}" for net in ("decoder", "encoder") for part in ("weight", "bias")}
    assert fit(Forward).params.keys() == {*networks, "scale"}


def test_nn_variational_tells_networks_from_parameters_of_the_guide():
    frozen = {"name": "nn_variational", "nn": {"frozen": True}}
    start, result = tensors(made(Forward, 3)), fit(Forward, seed=3, partition=frozen)
    after = {name.replace("$$$", "."): value for name, value in result.params.items()}
    assert apart(start, after) == []
    assert after["scale"] != 0.5
    frozen = {"name": "nn_variational", "variational": {"frozen": True}}
    result = fit(Forward, seed=3, partition=frozen)
    after = {name.replace("$$$", "."): value for name, value in result.params.items()}
    assert apart(start, after) == list(start)
    assert after["scale"] == 0.5


def bare(x):
    pyro.sample("x", dist.Normal(pyro.sample("mean", dist.Normal(0.0, 1.0)), 1.0).expand(x.shape).to_event(2), obs=x)


class NoGuide(Forward):
    guide = None


@pytest.mark.parametrize("model", [bare, NoGuide])
def test_a_model_without_a_guide_is_told_so(model):
    with pytest.raises(ConfigError, match="guide = 'own': the model brings none; use auto_normal") as caught:
        fit(model)
    assert len(caught.value.problems) == 1


# Shipped models.


def test_a_shipped_model_without_a_guide_is_told_so():
    with pytest.raises(ConfigError, match=r"model=radon brings none \(digits_vae, digits_sbn do\); use auto_normal"):
        sweepvi.fit("radon", guide="own")


def test_nothing_else_is_said_of_a_wrong_model():
    with pytest.raises(ConfigError) as caught:
        sweepvi.fit("radom", guide="own")
    assert [problem.key for problem in caught.value.problems] == ["model.name"]


def built(seed, model="digits_vae"):
    words = [f"model={model}", "guide=own", f"engine.seed={seed}", "engine.steps=4", "engine.score_draws=2"]
    words += ["model.batch_size=50", *(["estimator=trace_graph"] if model == "digits_sbn" else [])]
    return recipe.build(config.compose(words).config)


@pytest.mark.parametrize("model", ["digits_vae", "digits_sbn"])
def test_seeds_differ_in_starting_weights_and_not_in_data(model):
    one, two, again = built(1, model), built(2, model), built(1, model)
    start = one.problem.model.state_dict()
    assert same(start, again.problem.model.state_dict())
    assert apart(start, two.problem.model.state_dict())
    assert torch.equal(one.problem.kwargs["images"], two.problem.kwargs["images"])
    results = [runs.run(made, None) for made in (one, again, two)]
    assert same(results[0].params, results[1].params)
    assert results[0].elbo == results[1].elbo
    assert results[0].elbo != results[2].elbo


def test_the_networks_of_the_vae_are_one_group_and_its_bias_the_other():
    result = sweepvi.fit(
        {"name": "digits_vae", "batch_size": 50},
        guide="own",
        partition={"name": "nn_variational", "variational": {"lr_factor": 10.0}},
        **QUICK,
    )
    assert {name: rates[0].item() for name, rates in result.rates.items()} == {"nn": 0.02, "variational": 0.2}
    weights = {f"encoder$$${layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    weights |= {"decoder$$$0.weight", "decoder$$$0.bias", "decoder$$$2.weight"}
    assert result.params.keys() == {*weights, "bias_loc", "bias_scale"}


# Run folders.


@pytest.mark.parametrize("words", [SHIPPED, USERS], ids=["shipped", "users"])
def test_resumed_and_repeated_runs_have_the_same_numbers(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draws = ["engine.score_draws=3", "engine.posterior_draws=0"]
    start = [*words, *draws, "guide=own", "engine.seed=4", "-q"]
    paths = [word for word in words if ".path=" in word or ".data=" in word]
    assert main([*start, "engine.steps=20", "hydra.run.dir=whole"]) == 0
    assert main([*start, "engine.steps=13", "hydra.run.dir=parts"]) == 0
    assert main(["resume=parts", "engine.steps=20", "-q", *paths]) == 0
    assert main(["rerun=whole", "hydra.run.dir=again", "-q", *paths]) == 0
    assert numbers("parts") == numbers("whole") == numbers("again")


def numbers(folder):
    """All that a run computed."""
    files = [Path(folder, name).read_bytes() for name in ("losses.csv", "params.safetensors")]
    return [*files, json.loads(Path(folder, "result.json").read_text())["elbo"]]


def test_a_saved_run_draws_as_before(tmp_path):
    result = fit(Forward, seed=3)
    result.save(tmp_path / "users")
    again = sweepvi.FitResult.load(tmp_path / "users", Forward, (X,))
    assert same(again.sample(3), result.sample(3))
    result = sweepvi.fit({"name": "digits_vae", "hidden": [4]}, guide="own", steps=2, score_draws=0, seed=3)
    result.save(tmp_path / "shipped")
    assert same(sweepvi.FitResult.load(tmp_path / "shipped").sample(2), result.sample(2))


def test_the_command_line_answers_before_it_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["model=eight_schools", "guide=own", "engine.steps=0"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"guide = 'own': model=eight_schools brings none", said)
    assert "engine.steps = 0" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["digits_vae", "digits_sbn"])
def test_the_experiments_improve_from_their_first_steps(name):
    made = config.compose([f"experiment={name}", "engine.steps=60", "engine.score_draws=2"])
    assert made.problems == []
    result = runs.run(recipe.build(made.config), None)
    assert result.losses[-10:].mean() < 0.95 * result.losses[:10].mean()
