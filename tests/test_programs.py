"""Every kind of Pyro program fits, from Python and from the command line, and resumes to the last bit."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pyro
import pytest
import torch
from conftest import generator_states
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoNormal

import sweepvi
from sweepvi.cli import main

PROGRAMS = Path(__file__).parent / "programs"
# file, model, guide or None for the default, estimator
KINDS = [
    ("raw_param.py", "model", "guide", "trace"),
    ("pyro_module.py", "Regression", None, "trace"),
    ("vae.py", "vae.model", "vae.guide", "trace"),
    ("discrete.py", "model", "guide", "trace_graph"),
    ("late_param.py", "model", "guide", "trace"),
]
IDS = [kind[0].removesuffix(".py") for kind in KINDS]


def load(file, attribute):
    spec = importlib.util.spec_from_file_location(file.removesuffix(".py"), PROGRAMS / file)
    module = importlib.util.module_from_spec(spec)
    torch.manual_seed(0)
    spec.loader.exec_module(module)
    found = module
    for name in attribute.split("."):
        found = getattr(found, name)
    return found, module.data() if callable(module.data) else module.data


def arguments(data):
    return {"kwargs": data} if isinstance(data, dict) else {"args": data}


def in_python(kind, **settings):
    file, model_name, guide_name, estimator = kind
    model, data = load(file, model_name)
    if guide_name is None:
        guide = "auto_normal"
    elif "." in guide_name:
        guide = getattr(model.__self__, guide_name.split(".")[1])
    else:
        guide = load(file, guide_name)[0]
    model = model() if isinstance(model, type) else model
    return model, guide, arguments(data), dict(estimator=estimator, score_draws=20, **settings)


def on_command_line(kind, *more):
    file, model, guide, estimator = kind
    words = ["model=custom", f"model.path={PROGRAMS / file}:{model}", f"model.data={PROGRAMS / file}:data"]
    if guide is not None:
        words += ["guide=custom", f"guide.path={PROGRAMS / file}:{guide}"]
    return [*words, f"estimator={estimator}", "engine.score_draws=20", "-q", *more]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_fits_from_python(kind):
    model, guide, data, settings = in_python(kind, steps=150, optimizer={"name": "adam", "lr": 0.05})
    result = sweepvi.fit(model, guide=guide, **data, **settings)
    assert result.status == "finished"
    assert result.losses[-30:].mean() < result.losses[:30].mean()
    assert result.elbo_se > 0
    drawn = result.sample(5)
    assert drawn
    assert all(len(draws) == 5 for draws in drawn.values())


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_fits_from_the_command_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(on_command_line(kind, "engine.steps=50", "hydra.run.dir=run")) == 0
    assert json.loads(Path("run/result.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_resumed_equals_uninterrupted(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = on_command_line(kind, "engine.steps=60", "hydra.run.dir=whole")
    assert main(whole) == 0
    assert main(on_command_line(kind, "engine.steps=37", "hydra.run.dir=parts")) == 0
    paths = [word for word in whole if ".path=" in word or ".data=" in word]
    assert main(["resume=parts", "engine.steps=60", "-q", *paths]) == 0
    for name in ("losses.csv", "params.safetensors"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes(), name
    elbo = [json.loads(Path(run, "result.json").read_text())["elbo"] for run in ("whole", "parts")]
    assert elbo[0] == elbo[1]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_fit_leaves_the_users_programs_as_they_were(kind):
    model, guide, data, settings = in_python(kind, steps=20)
    generators = generator_states()
    first = sweepvi.fit(model, guide=guide, **data, **settings)
    assert generator_states() == generators
    again = sweepvi.fit(model, guide=guide, **data, **settings)
    assert torch.equal(first.losses, again.losses)
    assert first.elbo == again.elbo


def test_networks_keep_their_values_outside_and_have_the_fitted_ones_inside():
    vae, data = load("vae.py", "vae")
    before = vae.decoder[0].weight.clone()
    result = sweepvi.fit(vae.model, data, guide=vae.guide, steps=30, score_draws=0, optimizer="adam")
    assert torch.equal(vae.decoder[0].weight, before)
    assert vae.decoder[0].weight.grad is None
    assert not torch.equal(result.params["decoder$$$0.weight"], before)
    seen = []
    vae.decoder[0].register_forward_hook(lambda module, *_: seen.append(module.weight.clone()))
    result.model(*data)
    assert torch.equal(seen[0], result.params["decoder$$$0.weight"])


def test_two_results_do_not_mix_in_predictive():
    """Both fits have parameters of the same names; Pyro's global store would give the second those of the first."""
    model, data = load("raw_param.py", "model")
    means = []
    for shift in (0.0, 5.0):
        x = data["x"] + shift
        result = sweepvi.fit(
            model, (x,), guide=AutoNormal, steps=400, score_draws=0, optimizer={"name": "adam", "lr": 0.1}
        )
        means.append((result, x.mean()))
    for result, mean in means:
        drawn = Predictive(result.model, guide=result.guide, num_samples=50)(data["x"])["mean"]
        assert abs(drawn.mean() - mean) < 0.5
    assert len(pyro.get_param_store()) == 0


def test_an_autoguide_instance_is_not_used_up():
    model, data = load("raw_param.py", "model")
    guide = AutoNormal(model)
    fits = [sweepvi.fit(model, kwargs=data, guide=guide, steps=20, score_draws=0) for _ in range(2)]
    assert torch.equal(fits[0].losses, fits[1].losses)
    assert fits[0].guide.median(**data)["mean"] == fits[1].guide.median(**data)["mean"]
