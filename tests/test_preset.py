"""Presets: the rule of ``preset=auto``, how it goes from rung to rung, when it is meant, and what it leaves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi import api, cli, config, preflight, runs, telling
from sweepvi import preset as presets
from sweepvi.command import parse
from sweepvi.engine import Facts
from sweepvi.errors import ConfigError
from sweepvi.preset import PORTFOLIO, Rung, best_of, rungs

Y = torch.tensor([0.3, -1.2, 0.7, 2.0])


def facts(size, summed=(), why="", brings_guide=False):
    return Facts(size, summed, why, brings_guide)


@pytest.mark.parametrize(
    ("known", "first", "count"),
    [
        (facts(10), ("laplace", "auto_multivariate_normal", "stl"), 3),
        (facts(10, summed=("z",)), ("laplace", "auto_multivariate_normal", "trace_enum"), 3),
        (facts(500), ("laplace", "auto_diagonal_normal", "stl"), 1),
        (facts(5000), (None, "auto_normal", None), 1),
        (facts(10, why="it has parameters"), (None, "auto_normal", None), 1),
        (facts(10, why="it has parameters", brings_guide=True), (None, "own", None), 1),
        (facts(10, why="it has parameters", summed=("z",)), (None, "auto_normal", "trace_enum"), 1),
    ],
)
def test_facts_decide(known, first, count):
    found = rungs(known)
    names = tuple(
        found[0].nodes[g]["name"] if g in found[0].nodes else None for g in ("geometry", "guide", "estimator")
    )
    assert (names, len(found)) == (first, count)
    assert bool(found[0].note) == (first[0] is None)


@pytest.mark.parametrize(("size", "particles"), [(50, 64), (51, 16)])
def test_flows_of_many_variables_have_fewer_particles(size, particles):
    normal, flow, _ = rungs(facts(size))
    assert normal.nodes["estimator"]["num_particles"] == 8
    assert flow.nodes["estimator"]["num_particles"] == particles


def test_a_guide_for_the_models_own_variables_stays_with_them():
    [only] = rungs(facts(10), whitenable=False)
    assert "geometry" not in only.nodes
    assert "own variables" in only.note


def result(trust, elbo, k_hat=0.3, modes=1, status="finished"):
    verdict = SimpleNamespace(trust=trust, numbers={"k_hat": k_hat, "modes": modes})
    return SimpleNamespace(
        status=status,
        message="",
        elbo=elbo,
        elbo_se=0.1,
        verdict=verdict,
        steps=1,
        seconds=1.0,
        notes=[],
        restarts=[],
        config={"estimator": {"num_particles": 8}},
    )


LADDER = [Rung("first", {}), Rung("mode", {}, needs_mode=True), Rung("none", {}, needs_mode=False)]


@pytest.mark.parametrize(
    ("outcomes", "tried", "chosen"),
    [
        ([result("yes", -1.0)], ["first"], "first"),
        ([result("yes", -1.0, k_hat=0.6), result("yes", -2.0)], ["first", "mode"], "first"),
        ([result("caution", -3.0), result("yes", -2.0)], ["first", "mode"], "mode"),
        ([result("no", -3.0, modes=None), result("yes", -2.0)], ["first", "none"], "none"),
        ([result("no", None, status="diverged"), result("caution", -2.0)], ["first", "mode"], "mode"),
        ([result("no", -1.0, status="interrupted")], ["first"], "first"),
    ],
)
def test_rungs_are_tried_until_one_is_trusted(outcomes, tried, chosen):
    names = []

    def fit(number, rung):
        names.append(rung.name)
        return outcomes[len(names) - 1]

    best = best_of(LADDER, fit)
    assert names == tried
    assert [attempt["settings"] for attempt in best.attempts] == tried
    assert best is outcomes[tried.index(chosen)]


def test_a_rung_that_cannot_be_run_is_passed_over():
    def fit(number, rung):
        if number == 0:
            raise ConfigError([])
        return result("yes", -2.0)

    best = best_of([Rung("first", {}), Rung("second", {})], fit)
    assert [attempt["status"] for attempt in best.attempts] == ["failed", "finished"]
    with pytest.raises(ConfigError):
        best_of([Rung("first", {})], fit)


def test_a_better_fit_is_kept_when_the_next_is_interrupted():
    outcomes = iter([result("caution", -1.0), result("no", None, status="interrupted")])
    best = best_of(LADDER, lambda number, rung: next(outcomes))
    assert best.elbo == -1.0
    assert "interrupted" in best.notes[0]


def composed(*words):
    return config.compose(list(words))


@pytest.mark.parametrize("name", PORTFOLIO)
def test_the_file_of_a_preset_says_the_same(name):
    """Nothing but its settings differs from the defaults."""
    made, plain = composed(f"preset={name}"), composed()
    assert made.problems == []
    for group, node in plain.config.items():
        own = {key: value for key, value in PORTFOLIO[name].get(group, {}).items() if key != "name"}
        option = PORTFOLIO[name].get(group, {}).get("name", node["name"])
        assert made.config[group] == {**composed(f"{group}={option}").config[group], **own}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ((), set()),
        (("model=eight_schools", "engine.seed=3", "engine.score_draws=10"), set()),
        (("experiment=posteriordb/garch11",), {"engine.dtype"}),
        (("experiment=eight_schools_float64",), {"guide", "estimator", "scheduler", "engine.dtype"}),
        (("optimizer=clipped_adam",), {"optimizer"}),
        (("optimizer.lr=0.1",), {"optimizer"}),
        (("engine.steps=2000",), {"engine.steps"}),
        (("engine=eager",), {"engine"}),
        (("engine=lanes",), set()),
    ],
)
def test_what_is_said(words, left):
    made = composed(*words)
    assert presets.said(made.config, api.DEFAULTS, made.named) == left
    by_rule = preflight.composed(parse(list(words)))[1]
    assert by_rule == (left if left <= {"engine.dtype"} else None)


def test_the_defaults_are_those_of_the_configuration():
    choices = composed().hydra.runtime.choices
    assert {group: choices[group] for group in api.DEFAULTS} == api.DEFAULTS


def badly_scaled(y):
    a = pyro.sample("a", dist.Normal(0.0, 1e4))
    b = pyro.sample("b", dist.Normal(1e-3 * a, 1e-2))
    pyro.sample("y", dist.Normal(b, 1.0).expand([4]).to_event(1), obs=y)


def test_nothing_said_is_everything_right(tmp_path):
    """A posterior whose scales differ by 10⁶, without a number from the user."""
    found = sweepvi.fit(badly_scaled, (Y,), folder=tmp_path / "run", posterior_draws=4000)
    a = next(row for row in found.posterior.rows if row.name == "a")
    precision = 1e-8 + 1e-6 / (1e-4 + 0.25)
    assert a.sd == pytest.approx(precision**-0.5, rel=0.05)
    assert a.mean == pytest.approx(1e-3 * float(Y.sum()) / 4 / (1e-4 + 0.25) / precision, abs=0.1 * precision**-0.5)
    assert found.verdict.trust == "yes"
    assert found.config["geometry"]["name"] == "laplace"
    # Where the guide is the posterior, gradients of stl are roundings: no two ways to compute them agree in size.
    assert found.engine == "lanes"
    assert (tmp_path / "run" / "attempts" / "1" / "result.json").exists()
    again = sweepvi.FitResult.load(tmp_path / "run", badly_scaled, (Y,))
    assert again.attempts == found.attempts
    assert again.sample(3)["a"].shape == (3,)
    with pytest.raises(ConfigError, match="holds a run already"):
        sweepvi.fit(badly_scaled, (Y,), folder=tmp_path / "run")


class Stopped(BaseException):
    """A kill."""


def test_a_run_that_was_killed_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """The second attempt never began; the first is not fitted again, and what was said counts still."""
    monkeypatch.chdir(tmp_path)
    tried, run = [], runs.run
    two = [Rung(guide, {"guide": {"name": guide}, "engine": {}}) for guide in ("auto_normal", "auto_delta")]
    monkeypatch.setattr(sys.modules["sweepvi.preset.ladder"], "rungs", lambda *facts: two)

    def killed(made, folder, observer=None, resume=False):
        tried.append((folder.name, made.settings.steps, made.config["guide"]["name"]))
        if len(tried) == 2:
            raise Stopped
        result = run(made, folder, observer, resume)
        result.verdict = None
        return result

    monkeypatch.setattr(runs, "run", killed)
    monkeypatch.setattr(api, "run", killed)
    with pytest.raises(Stopped):
        sweepvi.fit("eight_schools", preset="auto", steps=4, score_draws=10, posterior_draws=0, folder=tmp_path / "run")
    assert presets.unfinished(tmp_path / "run")
    assert cli.main([f"resume={tmp_path / 'run'}", "-q"]) == 0
    capsys.readouterr()
    assert not presets.unfinished(tmp_path / "run")
    assert tried[2:] == [("1", 4, "auto_normal"), ("2", 4, "auto_delta")]
    said = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [attempt["steps"] for attempt in said["attempts"]] == [4, 4]


def test_a_named_preset_from_python_is_that_of_the_command_line():
    found = sweepvi.fit(
        "eight_schools", preset="laplace_normal", steps=3, score_draws=10, posterior_draws=0, optimizer="sgd"
    )
    made = composed("model=eight_schools", "preset=laplace_normal", "optimizer=sgd")
    assert made.config["optimizer"]["lr"] == composed("optimizer=sgd").config["optimizer"]["lr"]
    for group in ("geometry", "guide", "estimator", "optimizer", "scheduler"):
        assert found.config[group] == made.config[group]
    assert found.config["engine"]["dtype"] == "float64"


def test_an_unknown_preset_is_told_so():
    with pytest.raises(ConfigError, match="valid: auto, laplace_flow"):
        sweepvi.fit(badly_scaled, (Y,), preset="fast")


PAGE = (Path(__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")


def test_the_page_has_every_preset():
    table = PAGE.partition("| `preset` | what it is |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(PORTFOLIO)


def test_an_attempt_without_an_elbo_is_told():
    """A fit can finish and its fresh draws not be finite."""
    attempt = {"settings": "laplace_normal", "status": "finished", "message": "", "elbo": None, "k_hat": None}
    told = telling._attempts(SimpleNamespace(attempts=[{**attempt, "trust": "no", "seconds": 1.0}], elbo=None))
    assert told == ["preset laplace_normal: ELBO not finite, trust no, 1.0 s"]
