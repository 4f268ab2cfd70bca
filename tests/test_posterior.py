"""The posterior's table: against posteriors that are known exactly; saved, loaded, told."""

from __future__ import annotations

import json
import math
import signal
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi import telling
from sweepvi.diagnostics import importance_weights
from sweepvi.engine import Observer, fresh_draws
from sweepvi.engine.fresh_draws import sites_of
from sweepvi.engine.lanes import end
from sweepvi.estimators.sites import PLACED, WHITENED
from sweepvi.posterior import COLUMNS, Posterior, Row, scalar_names, summarised
from sweepvi.problem import Problem

F64 = torch.float64
X = torch.tensor([1.0, 2.0, 3.0])
STILL = {"optimizer": {"name": "sgd", "lr": 1e-12}, "steps": 2}
LANES = {"name": "lanes", "restarts": 1}
needs_arviz = pytest.mark.skipif(find_spec("arviz_stats") is None, reason="arviz-stats needs Python 3.11")

MEAN, SD = 1.5, 0.5  # of the posterior of `normal`
SHIFT, SCALE = 0.2, 1.3  # of `wrong` from it


def normal(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.deterministic("both", torch.stack([mean, -2 * mean]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def wrong(x):
    loc = pyro.param("loc", torch.tensor(MEAN + SHIFT))
    pyro.sample("mean", dist.Normal(loc, SD * SCALE))


def weighted(draws, seed, scale=SCALE, shift=SHIFT):
    """Draws of a wrong normal, shape [draws, 1], and their weights."""
    noise = torch.randn(draws, dtype=F64, generator=torch.Generator().manual_seed(seed))
    value = MEAN + shift + scale * SD * noise
    return value[:, None], importance_weights(-((value - MEAN) / SD).square() / 2 + noise.square() / 2)


@needs_arviz
@pytest.mark.parametrize(("scale", "shift"), [(1.3, 0.2), (1.0, -0.4)])
def test_every_error_is_that_of_its_estimate(scale, shift):
    """Over repetitions, estimates are about the truth, as far from it as their errors say."""
    rows = [summarised(["m"], *weighted(1000, seed, scale, shift))["m"] for seed in range(200)]
    known = {"mean": MEAN + shift, "sd": scale * SD, "psis_mean": MEAN, "psis_sd": SD}
    for column, truth in known.items():
        error = {"mean": "mcse_mean", "sd": "mcse_sd", "psis_mean": "psis_mcse_mean", "psis_sd": "psis_mcse_sd"}[column]
        scores = np.array([(getattr(row, column) - truth) / getattr(row, error) for row in rows])
        assert abs(scores.mean()) < 0.3, column
        assert 0.8 < scores.std() < 1.2, column


@needs_arviz
def test_quantiles_are_those_of_the_normals():
    row = summarised(["m"], *weighted(200_000, 1))["m"]
    for column, place in {"q5": -1.6449, "q25": -0.6745, "q50": 0.0, "q75": 0.6745, "q95": 1.6449}.items():
        assert getattr(row, column) == pytest.approx(MEAN + SHIFT + SCALE * SD * place, abs=0.01)
        assert getattr(row, f"psis_{column}") == pytest.approx(MEAN + SD * place, abs=0.01)


@needs_arviz
def test_equal_weights_change_nothing():
    values = torch.randn(1000, 3, dtype=F64)
    table = summarised(["a", "b", "c"], values, importance_weights(torch.zeros(1000, dtype=F64)))
    for row in table.rows:
        for column in COLUMNS[1:10]:
            assert getattr(row, f"psis_{column}") == pytest.approx(getattr(row, column), rel=1e-3, abs=1e-9)
    expected = np.quantile(values.numpy(), [0.05, 0.95], axis=0, method="hazen")
    np.testing.assert_allclose([[row.q5, row.q95] for row in table.rows], expected.T, rtol=1e-12)


def test_what_does_not_vary_has_no_spread_and_no_say():
    values = torch.full((1000, 2), 0.1)
    values[:, 1] = torch.randn(1000)
    table = summarised(["still", "moving"], values, importance_weights(torch.randn(1000, dtype=F64) / 10))
    still = table["still"]
    assert still.mean == pytest.approx(0.1)
    assert (still.sd, still.mcse_mean, still.mcse_sd, still.q5) == (0.0, 0.0, 0.0, still.q95)
    assert table.largest_error[1] == "moving"


def test_names_are_as_python_indexes():
    names = ["a", "b[0]", "b[1]", "c[0,0]", "c[0,1]", "c[0,2]", "c[1,0]", "c[1,1]", "c[1,2]"]
    assert scalar_names({"a": (), "b": (2,), "c": (2, 3), "none": (0,)}) == names


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fit by lanes of the wrong normal, and its folder."""
    folder = tmp_path_factory.mktemp("run") / "it"
    engine = {**LANES, "restarts": 2, "dtype": "float64"}
    return sweepvi.fit(normal, (X,), guide=wrong, engine=engine, folder=folder, **STILL), folder


def eagerly(**more):
    return sweepvi.fit(normal, (X,), guide=wrong, engine="eager", **STILL, **more)


@needs_arviz
@pytest.mark.parametrize("engine", ["lanes", "eager"])
def test_a_fit_has_the_known_posterior(run, engine):
    result = run[0] if engine == "lanes" else eagerly(posterior_draws=600, score_draws=700)
    table = result.posterior
    assert [row.name for row in table.rows] == ["mean", "both[0]", "both[1]"]
    assert table.draws == result.verdict.numbers["draws"] == (10_000 if engine == "lanes" else 600)
    assert table.corrected
    for name, factor in {"mean": 1, "both[0]": 1, "both[1]": -2}.items():
        row = table[name]
        assert abs(row.mean - factor * (MEAN + SHIFT)) < 4 * row.mcse_mean
        assert abs(row.sd - abs(factor) * SCALE * SD) < 4 * row.mcse_sd
        assert abs(row.psis_mean - factor * MEAN) < 4 * row.psis_mcse_mean
        assert abs(row.psis_sd - abs(factor) * SD) < 4 * row.psis_mcse_sd
        assert row.psis_mcse_mean < abs(factor) * SD / math.sqrt(table.draws)
    assert result.verdict.numbers["shift"] == pytest.approx(SHIFT / SD, abs=0.1)
    assert result.verdict.trust == ("yes" if engine == "lanes" else "caution")


def test_restarts_are_counted(run):
    numbers = run[0].verdict.numbers
    assert (numbers["restarts"], numbers["finished"], numbers["agreeing"]) == (2, 2, 2)


def test_a_saved_table_and_verdict_are_loaded(run):
    result, folder = run
    loaded = sweepvi.FitResult.load(folder)
    assert loaded.posterior == result.posterior
    assert loaded.verdict == result.verdict
    table = pd.read_csv(folder / "posterior.csv", index_col="name")
    pd.testing.assert_frame_equal(table, result.posterior.to_pandas())
    assert list(table.columns) == list(COLUMNS[1:])


def test_a_run_of_before_there_were_verdicts_is_loaded(run, tmp_path):
    result, _ = run
    result.save(tmp_path / "old")
    (tmp_path / "old/posterior.csv").unlink()
    summary = json.loads((tmp_path / "old/result.json").read_text())
    assert summary.pop("verdict")["trust"] == result.verdict.trust
    (tmp_path / "old/result.json").write_text(json.dumps(summary))
    loaded = sweepvi.FitResult.load(tmp_path / "old")
    assert (loaded.posterior, loaded.verdict, loaded.elbo) == (None, None, result.elbo)
    assert "trust" not in telling.one(loaded, tmp_path)


def test_both_are_told_at_the_end(run, tmp_path):
    result, _ = run
    lines = telling.one(result, tmp_path).splitlines()
    verdict, table = (
        next(n for n, line in enumerate(lines) if line.startswith(what)) for what in ("trust", "posterior")
    )
    corrected = "weighted by PSIS" if result.posterior.corrected else "unweighted"
    assert lines[verdict].startswith(f"trust: {result.verdict.trust} — ")
    assert lines[table] == f"posterior, 10,000 draws of the guide, {corrected}:"
    assert lines[table + 1].split() == ["mean", "sd", "error", "5", "%", "95", "%"]
    assert [line.split()[0] for line in lines[table + 2 : table + 5]] == ["mean", "both[0]", "both[1]"]
    assert lines[0].startswith("finished: ")
    assert lines[-2].startswith("saved in")


def row(name, mean=1.0, sd=0.1, psis_mean=2.0, psis_sd=0.2):
    return Row(name, mean, sd, 0.001, 0.0, 0.9, 0, 0, 0, 1.1, psis_mean, psis_sd, 0.002, 0.0, 1.8, 0, 0, 0, 2.2)


def test_the_text_shows_the_better_numbers_of_the_first_rows():
    rows = [row(f"a[{place}]") for place in range(20)]
    good, bad = (Posterior(rows, 10_000, k_hat).text() for k_hat in (0.69, 0.71))
    assert good.splitlines()[2].split() == ["a[0]", "2.000", "0.200", "0.0020", "1.800", "2.200"]
    assert bad.splitlines()[2].split() == ["a[0]", "1.000", "0.100", "0.0010", "0.900", "1.100"]
    assert "unweighted" in bad
    assert "unweighted" not in good
    assert len(good.splitlines()) == 2 + 12 + 1
    assert good.splitlines()[-1] == "… and 8 more in posterior.csv"
    assert not Posterior(rows, 1000, 0.68).corrected
    assert not Posterior(rows, 10_000, None).corrected


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.0), (1e12, 3.0), (3e-9, 1e-9), (math.nan, math.nan), (5.0, math.inf)])
def test_any_number_can_be_told(mean, sd):
    assert "a" in Posterior([row("a", mean, sd)], 100, None).text()


def test_rows_are_found_by_name():
    table = Posterior([row("a"), row("b", mean=3.0)], 100, None)
    assert (len(table), table["b"].mean) == (2, 3.0)
    with pytest.raises(KeyError):
        table["c"]


@needs_arviz
def test_a_guide_without_the_posteriors_tails_is_not_trusted():
    """Student's t with two degrees of freedom, and a normal as guide: weights without a mean."""

    def heavy():
        pyro.sample("t", dist.StudentT(1.0, 0.0, 1.0))

    def light():
        pyro.sample("t", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 0.7))

    result = sweepvi.fit(heavy, guide=light, engine={**LANES, "restarts": 2}, **STILL)
    assert result.verdict.numbers["k_hat"] > 0.7
    assert result.verdict.trust != "yes"
    assert not result.posterior.corrected


def test_a_point_is_no_posterior():
    result = sweepvi.fit(normal, (X,), guide="auto_delta", engine="eager", steps=2, score_draws=30)
    assert (result.verdict.trust, result.verdict.reasons[0]) == ("no", "the guide is one point, not a distribution")
    assert result.posterior["mean"].sd == 0.0


def minibatched(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=2) as batch:
        local = pyro.sample("local", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(local, 1.0), obs=x[batch])


def test_plates_are_whole_unless_minibatches_are_asked_for():
    how = {"engine": "eager", "score_draws": 30, **STILL}
    whole = sweepvi.fit(minibatched, (X,), **how)
    assert [row.name for row in whole.posterior.rows] == ["mean", "local[0]", "local[1]", "local[2]"]
    assert not whole.verdict.numbers["minibatches"]
    part = sweepvi.fit(minibatched, (X,), score_minibatches=True, **how)
    assert [row.name for row in part.posterior.rows] == ["mean"]
    assert any("minibatches" in reason for reason in part.verdict.reasons)
    assert "k-hat" not in str(part.verdict).splitlines()[0]


def mixture(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.deterministic("twice", 2 * mean)
    with pyro.plate("data", len(x)):
        which = pyro.sample("which", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
        pyro.deterministic("shifted", mean + which)
        pyro.sample("x", dist.Normal(mean + which, 1.0), obs=x)


def continuous(x):
    loc = pyro.param("loc", torch.tensor(1.0))
    pyro.sample("mean", dist.Normal(loc, 0.6))


@pytest.mark.parametrize("engine", ["lanes", "eager"])
def test_what_is_summed_over_is_not_in_the_table(engine):
    how = {"guide": continuous, "estimator": "trace_enum", "score_draws": 200, **STILL}
    result = sweepvi.fit(mixture, (X,), engine=LANES if engine == "lanes" else "eager", **how)
    assert [row.name for row in result.posterior.rows] == ["mean", "twice"]
    if result.verdict.numbers["k_hat"] is None:
        return
    # By quadrature: weights are those of the marginal.
    grid = torch.linspace(-6, 6, 4001, dtype=F64)
    terms = torch.stack([-(X[:, None] - grid - which).square() / 2 for which in (0, 1)]).logsumexp(0)
    density = torch.softmax(terms.sum(0) - grid.square() / 2, 0)
    mean = float(density @ grid)
    sd = float((density @ (grid - mean).square()).sqrt())
    row = result.posterior["mean"]
    assert abs(row.psis_mean - mean) < 4 * row.psis_mcse_mean
    assert abs(row.psis_sd - sd) < 4 * row.psis_mcse_sd


def test_placed_sites_are_the_latent_ones():
    """As in the models that a geometry makes."""

    def placed():
        flat = pyro.sample(WHITENED, dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(False))
        pyro.sample("scale", dist.HalfNormal(1.0), obs=flat[0].exp(), infer={PLACED: True})
        pyro.sample("slope", dist.Normal(0.0, 1.0), obs=flat[1], infer={PLACED: True})
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.tensor(1.0))

    def guide():
        pyro.sample(WHITENED, dist.Normal(torch.zeros(2), 1.0).to_event(1))

    sites = sites_of({"model": placed, "guide": guide}, Problem(placed))
    assert dict(sites.shapes) == {"scale": (), "slope": ()}
    assert (sites.latent, sites.points, sites.size) == (("scale", "slope"), (), 2)


def test_of_discrete_variables_there_is_no_table():
    def coin():
        heads = pyro.sample("heads", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(heads, 1.0), obs=torch.tensor(1.0))

    def guide():
        pyro.sample("heads", dist.Bernoulli(pyro.param("p", torch.tensor(0.6))))

    result = sweepvi.fit(coin, guide=guide, engine="eager", score_draws=200, **STILL)
    assert result.posterior is None
    assert result.verdict.numbers["draws"] == 200


class TestLargeModels:
    def fit(self, **more):
        return sweepvi.fit(normal, (X,), guide=wrong, engine=LANES, **{**STILL, "posterior_draws": 3000, **more})

    def test_fewer_draws_where_values_are_many(self, monkeypatch):
        monkeypatch.setattr(fresh_draws, "MOST_NUMBERS", 3 * 2500)
        result = self.fit()
        assert result.posterior.draws == 2500
        assert result.notes == ["the posterior is by 2,500 draws: more of 3 values each are too many to keep"]

    def test_no_table_where_they_are_too_many(self, monkeypatch):
        monkeypatch.setattr(fresh_draws, "MOST_NUMBERS", 3 * 900)
        result = self.fit()
        assert (result.posterior, result.verdict.numbers["draws"]) == (None, 3000)
        assert result.notes == ["no table of the posterior: 3 values a draw are too many to keep"]

    def test_no_draws_of_their_own_where_they_take_too_long(self, monkeypatch):
        monkeypatch.setattr(end, "WORK", 900)
        result = self.fit(score_draws=200)
        assert (result.posterior, result.verdict.numbers["draws"]) == (None, 200)
        assert result.notes == ["no table of the posterior: the model is too large for draws beside the ELBO's"]


def test_no_draws_where_none_are_wanted(tmp_path):
    result = eagerly(posterior_draws=0, score_draws=50, folder=tmp_path)
    assert result.posterior is None
    assert not (tmp_path / "posterior.csv").exists()
    assert "no k-hat: engine.posterior_draws=0" in result.verdict.reasons
    assert result.verdict.numbers["sd_log_weights"] > 0


def test_of_many_fits_only_when_asked():
    settings = [{"seed": 0, **STILL}, {"seed": 1, **STILL}]
    how = {"guide": wrong, "engine": LANES, "score_draws": 2500}
    none, _ = sweepvi.fit_many(normal, (X,), settings=settings, **how)
    assert (none.posterior, none.config["engine"]["posterior_draws"]) == (None, 0)
    _, asked = sweepvi.fit_many(normal, (X,), settings=settings, posterior_draws=2500, **how)
    assert asked.posterior.draws == 2500
    # Other draws than those of the score.
    of_score, own = asked.elbo_se * math.sqrt(2500), asked.verdict.numbers["sd_log_weights"]
    assert own == pytest.approx(of_score, rel=0.1)
    assert own != pytest.approx(of_score, rel=1e-4)


class Impatient(Observer):
    """Asks to stop while draws of the posterior are made."""

    def scoring(self, done, total):
        if (done, total) == (2000, 3000):
            signal.raise_signal(signal.SIGINT)


def test_an_interrupt_among_the_draws_can_be_resumed(tmp_path):
    how = {"guide": wrong, "engine": LANES, "posterior_draws": 3000, "folder": tmp_path, **STILL}
    cut = sweepvi.fit(normal, (X,), progress=Impatient(), **how)
    assert (cut.status, cut.message) == ("interrupted", "interrupted while the result was scored")
    assert (cut.posterior, cut.verdict.trust) == (None, "no")
    assert not (tmp_path / "posterior.csv").exists()
    whole = sweepvi.fit(normal, (X,), resume=True, **how)
    assert (whole.status, whole.posterior.draws) == ("finished", 3000)
    assert (tmp_path / "posterior.csv").exists()


def test_a_draw_at_which_the_model_fails_is_counted():
    def cliff():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("edge", torch.where(x < 2.0, 0.0, math.nan) * x)

    def guide():
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    result = sweepvi.fit(cliff, guide=guide, engine="eager", on_nonfinite="skip", score_draws=400, **STILL)
    assert result.verdict.trust == "no"
    assert "of 400 log weights are not finite" in result.verdict.reasons[0]
    assert math.isnan(result.posterior["x"].psis_mean)


def test_draws_for_arviz(run):
    pytest.importorskip("arviz_base")
    tree = run[0].to_arviz(draws=50, seed=3)
    assert dict(tree["posterior"].sizes) == {"chain": 1, "draw": 50, "both_dim_0": 2}
    draws = run[0].sample(50, seed=3)
    np.testing.assert_array_equal(tree["posterior"]["mean"].values[0], draws["mean"].numpy())
    # Known: log p - log q of each draw, but for log p(data), which is that of the mean.
    weight, value = tree["sample_stats"]["log_weight"].values[0], draws["mean"].numpy()
    noise = (value - MEAN - SHIFT) / (SCALE * SD)
    expected = noise**2 / 2 - ((value - MEAN) / SD) ** 2 / 2
    np.testing.assert_allclose(weight - weight.mean(), expected - expected.mean(), atol=1e-9)


def test_without_arviz_it_says_what_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(sweepvi.SweepviError, match=r"needs the package arviz-base: pip install 'sweepvi\[arviz\]'"):
        run[0].to_arviz()
