"""The rule of ``preset=auto``, and how it goes from rung to rung."""

from __future__ import annotations

from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.engine import Facts
from sweepvi.errors import ConfigError
from sweepvi.preset import Rung, best_of, rungs

Y = torch.tensor([0.3, -1.2, 0.7, 2.0])


def facts(size, summed=(), why="", brings_guide=False):
    return Facts(size, summed, why, brings_guide)


@pytest.mark.parametrize(
    ("known", "first", "count"),
    [
        (facts(10), ("laplace", "auto_multivariate_normal", "stl"), 3),
        (facts(10, summed=("z",)), ("laplace", "auto_multivariate_normal", "trace_enum"), 3),
        (facts(500), ("laplace", "auto_diagonal_normal", "stl"), 2),
        (facts(5000), (None, "auto_normal", None), 1),
        (facts(10, why="it has parameters"), (None, "auto_normal", None), 1),
        (facts(10, why="it has parameters", brings_guide=True), (None, "own", None), 1),
    ],
)
def test_facts_decide(known, first, count):
    found = rungs(known)
    names = tuple(
        found[0].nodes[g]["name"] if g in found[0].nodes else None for g in ("geometry", "guide", "estimator")
    )
    assert (names, len(found)) == (first, count)
    assert bool(found[0].note) == (first[0] is None)


def result(trust, elbo, k_hat=0.3, notes=(), status="finished"):
    verdict = SimpleNamespace(trust=trust, numbers={"k_hat": k_hat})
    return SimpleNamespace(
        status=status, message="", elbo=elbo, elbo_se=0.1, verdict=verdict, steps=1, seconds=1.0, notes=list(notes)
    )


LADDER = [Rung("first", {}), Rung("mode", {}, needs_mode=True), Rung("none", {}, needs_mode=False)]


@pytest.mark.parametrize(
    ("outcomes", "tried", "chosen"),
    [
        ([result("yes", -1.0)], ["first"], "first"),
        ([result("yes", -1.0, k_hat=0.6), result("yes", -2.0)], ["first", "mode"], "first"),
        ([result("caution", -3.0), result("yes", -2.0)], ["first", "mode"], "mode"),
        ([result("no", -3.0, notes=["geometry: no mode was found"]), result("yes", -2.0)], ["first", "none"], "none"),
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


def badly_scaled(y):
    a = pyro.sample("a", dist.Normal(0.0, 1e4))
    b = pyro.sample("b", dist.Normal(1e-3 * a, 1e-2))
    pyro.sample("y", dist.Normal(b, 1.0).expand([4]).to_event(1), obs=y)


@pytest.mark.long
def test_nothing_said_is_everything_right(tmp_path):
    """A posterior whose scales differ by 10⁶, without a number from the user; what is said is kept."""
    found = sweepvi.fit(badly_scaled, (Y,), preset="auto", restarts=1, folder=tmp_path / "run")
    a = next(row for row in found.posterior.rows if row.name == "a")
    precision = 1e-8 + 1e-6 / (1e-4 + 0.25)
    assert a.sd == pytest.approx(precision**-0.5, rel=0.05)
    assert a.mean == pytest.approx(1e-3 * float(Y.sum()) / 4 / (1e-4 + 0.25) / precision, abs=0.1 * precision**-0.5)
    assert found.verdict.trust == "yes"
    assert found.config["geometry"]["name"] == "laplace"
    assert len(found.restarts) == 0
    assert (tmp_path / "run" / "attempts" / "1" / "result.json").exists()
    again = sweepvi.FitResult.load(tmp_path / "run", badly_scaled, (Y,))
    assert again.attempts == found.attempts
    assert again.sample(3)["a"].shape == (3,)


def test_an_unknown_preset_is_told_so():
    with pytest.raises(ConfigError, match="valid: auto, none"):
        sweepvi.fit(badly_scaled, (Y,), preset="fast")
