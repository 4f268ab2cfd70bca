"""The ten posteriors of posteriordb: their densities, where their data are read, and what a fit is compared with.

With posteriordb itself, in ``./posteriordb`` or where the environment variable ``SWEEPVI_POSTERIORDB`` says, the
densities are also held to its reference draws.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from posteriordb_data import DATA, made_up
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from torch.distributions import biject_to
from torch.func import grad, jacrev, vmap

from sweepvi import cli
from sweepvi.errors import ConfigError
from sweepvi.loading import loader
from sweepvi.models.posteriordb import gp_pois_regr, lotka_volterra
from sweepvi.models.posteriordb.component import POSTERIORS, Posteriordb

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("SWEEPVI_POSTERIORDB", "posteriordb"))
every_posterior = pytest.mark.parametrize("name", POSTERIORS)


@pytest.fixture
def folder(tmp_path):
    return made_up(tmp_path / "posteriordb")


@pytest.fixture
def study(monkeypatch):
    """The experiment's modules, importable."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments" / "posteriordb"))


def problem(name, folder, dtype=torch.float64):
    return Posteriordb(name, str(folder)).problem(loader()).to(dtype, torch.device("cpu"))


def normal(x, mean, sd):
    return stats.norm.logpdf(x, mean, sd).sum()


def half_cauchy(x, scale):
    return stats.halfcauchy.logpdf(x, scale=scale)


def ar_k(at, data):
    order, y = data["K"], data["y"]
    total = normal(at["alpha"], 0, 10) + normal(at["beta"], 0, 10) + half_cauchy(at["sigma"], 2.5)
    for t in range(order, len(y)):
        mean = at["alpha"] + sum(at["beta"][k - 1] * y[t - k] for k in range(1, order + 1))
        total += normal(y[t], mean, at["sigma"])
    return total


def eight_schools(at, data):
    prior = normal(at["mu"], 0, 5) + half_cauchy(at["tau"], 5) + normal(at["theta_trans"], 0, 1)
    return prior + normal(data["y"], at["mu"] + at["tau"] * at["theta_trans"], data["sigma"])


def garch(at, data):
    """In the share of the side of the triangle: the density of the triangle is flat, and the volume is 1 − alpha1."""
    beta1, variance, total = at["beta1_share"] * (1 - at["alpha1"]), data["sigma1"] ** 2, np.log(1 - at["alpha1"])
    for t, y in enumerate(data["y"]):
        if t:
            variance = at["alpha0"] + at["alpha1"] * (data["y"][t - 1] - at["mu"]) ** 2 + beta1 * variance
        total += normal(y, at["mu"], variance**0.5)
    return total


def gp(at, data):
    x = np.array(data["x"], dtype=float)
    apart = x[:, None] - x
    covariance = at["alpha"] ** 2 * np.exp(-(apart**2) / (2 * at["rho"] ** 2)) + 1e-10 * np.eye(len(x))
    f = np.linalg.cholesky(covariance) @ at["f_tilde"]
    prior = stats.gamma.logpdf(at["rho"], 25, scale=1 / 4) + normal(at["alpha"], 0, 2) + normal(at["f_tilde"], 0, 1)
    return prior + stats.poisson.logpmf(data["k"], np.exp(f)).sum()


def hmm(at, data):
    rows = np.log([at["theta1"], at["theta2"]])
    total = normal(at["mu"][0], 3, 1) + normal(at["mu"][1], 10, 1)
    forward = stats.norm.logpdf(data["y"][0], at["mu"], 1)
    for y in data["y"][1:]:
        emitted = stats.norm.logpdf(y, at["mu"], 1)
        forward = np.array([logsumexp(forward + rows[:, state]) + emitted[state] for state in range(2)])
    return total + logsumexp(forward)


def kidscore(at, data):
    hs, iq, beta = np.array(data["mom_hs"]), np.array(data["mom_iq"]), at["beta"]
    mean = beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq
    return half_cauchy(at["sigma"], 2.5) + normal(data["kid_score"], mean, at["sigma"])


def kilpisjarvi(at, data):
    prior = normal(at["alpha"], data["pmualpha"], data["psalpha"]) + normal(at["beta"], data["pmubeta"], data["psbeta"])
    return prior + normal(data["y"], at["alpha"] + at["beta"] * np.array(data["x"]), at["sigma"])


def populations(theta, z_init, times):
    def change(_, z):
        return (theta[0] - theta[1] * z[1]) * z[0], (-theta[2] + theta[3] * z[0]) * z[1]

    return solve_ivp(change, (0, times[-1]), z_init, t_eval=times, rtol=1e-11, atol=1e-11, method="DOP853").y.T


def predators(at, data):
    theta, sigma, z_init = at["theta"], at["sigma"], at["z_init"]
    total = normal(theta[[0, 2]], 1, 0.5) + normal(theta[[1, 3]], 0.05, 0.05)
    total += stats.lognorm.logpdf(sigma, 1, scale=math.exp(-1)).sum() + stats.lognorm.logpdf(z_init, 1, scale=10).sum()
    total += stats.lognorm.logpdf(data["y_init"], sigma, scale=z_init).sum()
    return total + stats.lognorm.logpdf(data["y"], sigma, scale=populations(theta, z_init, data["ts"])).sum()


def mixture(at, data):
    total = normal(at["mu"], 0, 2) + normal(at["sigma"], 0, 2) + stats.beta.logpdf(at["theta"], 5, 5)
    for y in data["y"]:
        first, second = stats.norm.pdf(y, at["mu"], at["sigma"])
        total += np.log(at["theta"] * first + (1 - at["theta"]) * second)
    return total


def nes(at, data):
    total, beta = 0.0, at["beta"]
    for person in range(data["N"]):
        of = {key: values[person] for key, values in data.items() if key != "N"}
        ages = [of["age_discrete"] == age for age in (2, 3, 4)]
        row = [1, of["real_ideo"], of["race_adj"], *ages, of["educ1"], of["gender"], of["income"]]
        total += normal(of["partyid7"], np.dot(row, beta), at["sigma"])
    return total


BY_HAND = {
    "arK": ar_k,
    "eight_schools_noncentered": eight_schools,
    "garch11": garch,
    "gp_pois_regr": gp,
    "hmm_example": hmm,
    "kidscore_interaction": kidscore,
    "kilpisjarvi": kilpisjarvi,
    "lotka_volterra": predators,
    "low_dim_gauss_mix": mixture,
    "nes": nes,
}


def log_prob(problem, at):
    with pyro.validation_enabled(False):
        return poutine.trace(poutine.condition(problem.model, data=at)).get_trace(**problem.kwargs).log_prob_sum()


class Origin(Messenger):
    """Gives latent sites the origin of their unconstrained coordinates, and notes where these go, and their shapes."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype, self.support = dtype, {}

    def _pyro_sample(self, site):
        if not site["is_observed"] and not site_is_subsample(site):
            to = biject_to(site["fn"].support)
            start = torch.zeros(to.inverse_shape(site["fn"].shape()), dtype=self.dtype)
            self.support[site["name"]] = (to, start.shape)
            site["value"], site["done"] = to(start), True


class Unconstrained:
    """A model's log joint over unconstrained numbers, with the volume of the change of variables."""

    def __init__(self, problem):
        self.problem = problem
        dtype = next(value.dtype for value in problem.kwargs.values() if isinstance(value, torch.Tensor))
        with Origin(dtype) as origin:
            problem.model(**problem.kwargs)
        self.support = origin.support
        self.size = sum(shape.numel() for _, shape in self.support.values())

    def values(self, z):
        pieces = z.split([shape.numel() for _, shape in self.support.values()])
        pairs = zip(self.support.items(), pieces, strict=True)
        return {name: (to, piece.reshape(shape)) for (name, (to, shape)), piece in pairs}

    def sites(self, z):
        return {name: to(u) for name, (to, u) in self.values(z).items()}

    def coordinates(self, sites):
        """Of draws by site, each of shape [n, ...]."""
        flat = [to.inv(sites[name]).reshape(len(sites[name]), -1) for name, (to, _) in self.support.items()]
        return torch.cat(flat, dim=-1)

    def __call__(self, z):
        volume = sum(to.log_abs_det_jacobian(u, to(u)).sum() for to, u in self.values(z).values())
        return log_prob(self.problem, self.sites(z)) + volume


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def points(size, count=4):
    return 0.7 * torch.randn(count, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@every_posterior
def test_log_joint_is_the_one_written_by_hand(name, folder, double, monkeypatch):
    """Up to a constant: differences between points."""
    monkeypatch.setattr(lotka_volterra, "STEPS", 60)
    posed = problem(name, folder)
    density = Unconstrained(posed)
    both = []
    for z in points(density.size):
        at = density.sites(z)
        by_hand = BY_HAND[name]({site: value.numpy() for site, value in at.items()}, DATA[name])
        both.append((log_prob(posed, at).item(), by_hand))
    model, by_hand = np.array(both).T
    assert np.ptp(by_hand) > 0.5
    assert np.diff(model) == pytest.approx(np.diff(by_hand), rel=1e-6)


@every_posterior
def test_derivatives_are_finite_for_many_points_at_once_in_both_precisions(name, folder, double):
    single, exact = {}, {}
    for dtype, found in ((torch.float32, single), (torch.float64, exact)):
        torch.set_default_dtype(dtype)
        density = Unconstrained(problem(name, folder, dtype))
        z = points(density.size).to(dtype)
        found["gradient"] = vmap(grad(density))(z)
        found["hessian"] = jacrev(grad(density))(z[0])
        assert all(value.dtype == dtype and value.isfinite().all() for value in found.values())
    for what, value in exact.items():
        assert (single[what] - value).abs().max() < 2e-3 * value.abs().max()
    assert torch.allclose(exact["hessian"], exact["hessian"].T, rtol=1e-6, atol=1e-6)


@every_posterior
def test_draws_can_be_a_plate_around_the_model(name, folder, double):
    """As with vectorised particles: the log joint of each draw is what it is alone."""
    posed = problem(name, folder)
    density = Unconstrained(posed)
    draws = [density.sites(z) for z in points(density.size)]
    several = {site: torch.stack([draw[site] for draw in draws]) for site in draws[0]}
    several = {site: value if site == "theta_trans" else value.unsqueeze(1) for site, value in several.items()}

    def around():
        with pyro.plate("draws", len(draws), dim=-2):
            posed.model(**posed.kwargs)

    trace = poutine.trace(poutine.condition(around, data=several)).get_trace()
    trace.compute_log_prob()
    terms = [site["log_prob"] for site in trace.nodes.values() if site["type"] == "sample"]
    total = sum(term.sum(-1) for term in terms if term.dim())
    assert total.tolist() == pytest.approx([log_prob(posed, draw).item() for draw in draws])


def test_populations_are_accurate_over_twenty_years(double):
    """Within a thousandth about the posterior, as STEPS says: a period of ten years, growth of half a year."""
    for theta in ([0.55, 0.028, 0.80, 0.024], [0.68, 0.036, 0.62, 0.018]):
        start = np.array([34.0, 6.0])
        times = range(1, 21)
        exact = np.log(populations(theta, start, list(times)))
        found = lotka_volterra.populations(torch.tensor(theta), torch.tensor(start).log(), [1.0] * 20)
        assert np.abs(found.numpy() - exact).max() < 1e-3


@pytest.mark.parametrize("layout", ["folders", "checkout"])
@every_posterior
def test_both_layouts_are_read(name, layout, folder, tmp_path, study):
    from reference import reference, reference_draws

    full = POSTERIORS[name].name
    draws = {"mu": np.arange(6.0).reshape(2, 3), "theta[1]": np.ones((2, 3))}
    np.savez(folder / full / "draws.npz", **draws)
    if layout == "checkout":
        checkout = tmp_path / "checkout"
        chains = [{scalar: list(values[chain]) for scalar, values in draws.items()} for chain in range(2)]
        zipped(checkout / "posterior_database/data/data" / f"{full.partition('-')[0]}.json.zip", DATA[name])
        zipped(checkout / f"posterior_database/reference_posteriors/draws/draws/{full}.json.zip", chains)
        expected, folder = problem(name, folder), checkout
        found = problem(name, folder)
        assert expected.kwargs.keys() == found.kwargs.keys()
        for key, value in expected.kwargs.items():
            assert value is found.kwargs[key] or bool(torch.as_tensor(value == found.kwargs[key]).all())
    read = reference_draws(folder, name)
    assert {scalar: values.tolist() for scalar, values in read.items()} == {k: v.tolist() for k, v in draws.items()}
    assert reference(folder, name).mean == {"mu": 2.5, "theta[1]": 1.0}
    assert reference(folder, name).sd["mu"] == pytest.approx(np.std(np.arange(6), ddof=1))


def zipped(file, content):
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(file.stem, json.dumps(content))


def test_a_missing_folder_is_bad_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        problem("garch11", "nowhere")
    said = str(error.value)
    assert said.startswith("model.folder = 'nowhere': cannot read nowhere/garch-garch11/data.json")
    assert "git clone --depth 1 https://github.com/stan-dev/posteriordb (BSD-3-Clause)" in said
    assert cli.main(["experiment=posteriordb/garch11"]) == 2
    assert "model.folder = 'posteriordb'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"y": "text", "sigma1": 1}'])
def test_a_file_of_something_else_is_bad_input(content, folder):
    (folder / "garch-garch11/data.json").write_text(content)
    with pytest.raises(ConfigError, match=r"does not hold the data of garch-garch11"):
        problem("garch11", folder)


def test_a_broken_archive_is_bad_input(tmp_path):
    file = tmp_path / "posterior_database/data/data/garch.json.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"garch\.json\.zip does not hold the data"):
        problem("garch11", tmp_path)


def test_draws_have_stans_names(study):
    from reference import scalars

    draws = {"mu": torch.arange(2.0), "f": torch.arange(4.0).reshape(2, 2), "m": torch.zeros(2, 1, 2)}
    found = scalars(draws)
    assert list(found) == ["mu", "f[1]", "f[2]", "m[1,1]", "m[1,2]"]
    assert found["f[2]"].tolist() == [1.0, 3.0]


def test_measures_and_the_pass(study):
    from measures import measures, moments
    from reference import Reference

    normals = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    reference = Reference({"a": 0.0, "b": 10.0}, {"a": 1.0, "b": 2.0})
    right = measures(moments({"a": normals, "b": 10 + 2 * normals, "other": normals}), reference)
    assert right.passes
    assert right.low == pytest.approx(1, abs=0.01)
    assert right.high == pytest.approx(1, abs=0.01)
    shifted = measures(moments({"a": normals, "b": 10.3 + 2 * normals}), reference)
    assert not shifted.passes
    assert (shifted.worst, shifted.bias) == ("b", pytest.approx(0.15, abs=0.01))
    narrow = measures(moments({"a": 0.7 * normals, "b": 10 + 2.6 * normals}), reference)
    assert not narrow.passes
    assert (narrow.low, narrow.high) == (pytest.approx(0.7, abs=0.01), pytest.approx(1.3, abs=0.01))
    broken = measures(moments({"a": normals * np.nan, "b": normals}), reference)
    assert not broken.passes
    assert broken.bias == math.inf


def test_the_suite_runs_resumes_and_tells(study, folder, tmp_path, monkeypatch, capsys):
    import suite
    import with_pyro

    for name in ("kilpisjarvi", "garch11"):
        scalars = {"kilpisjarvi": ["alpha", "beta", "sigma"], "garch11": ["mu", "alpha0", "alpha1", "beta1"]}[name]
        draws = {scalar: np.arange(6.0).reshape(2, 3) for scalar in scalars}
        np.savez(folder / POSTERIORS[name].name / "draws.npz", **draws)
    fits = []

    def short(problem, seed):
        fits.append(seed)
        return with_pyro.fit(problem, seed, steps=3)

    def broken(problem, seed):
        raise ValueError("no fit")

    monkeypatch.setattr(suite, "CONTENDERS", {"pyro": short, "sweepvi": broken})
    results, before = tmp_path / "results.jsonl", torch.get_default_dtype()
    words = ["suite.py", "--folder", str(folder), "--only", "garch11", "kilpisjarvi", "--results", str(results)]
    try:
        for seeds in ("1", "2", "2"):
            monkeypatch.setattr("sys.argv", [*words, "--seeds", seeds])
            suite.main()
    finally:
        torch.set_default_dtype(before)
        pyro.clear_param_store()
    assert fits == [0, 0, 1, 1]
    assert len(results.read_text().splitlines()) == 8
    table = capsys.readouterr().out
    assert "| garch11 | pyro | " in table
    assert "0 of 2" in table
    assert "| garch11 | sweepvi | – | – | – | – | – | 0 of 2 | – | – |" in table
    assert "pyro: passes on 0 of 2 posteriors" in table


def stacked(draws):
    """Draws by site, each of shape [n, ...], of draws by scalar."""
    sites = {}
    for scalar, values in draws.items():
        sites.setdefault(scalar.partition("[")[0], []).append(torch.tensor(values.reshape(-1)))
    return {site: torch.stack(of, -1) if f"{site}[1]" in draws else of[0] for site, of in sites.items()}


def sampled(name, sites, kwargs):
    """What is sampled, of what the reference has."""
    if name == "eight_schools_noncentered":
        sites["theta_trans"] = (sites.pop("theta") - sites["mu"].unsqueeze(-1)) / sites["tau"].unsqueeze(-1)
    if name == "garch11":
        sites["beta1_share"] = sites.pop("beta1") / (1 - sites["alpha1"])
    if name == "gp_pois_regr":
        factor = gp_pois_regr.factor(kwargs["x"], sites["rho"], sites["alpha"])
        f = sites.pop("f").unsqueeze(-1)
        sites["f_tilde"] = torch.linalg.solve_triangular(factor, f, upper=False).squeeze(-1)
    return sites


@pytest.mark.skipif(not FOLDER.is_dir(), reason="posteriordb is not there; SWEEPVI_POSTERIORDB says where")
@every_posterior
def test_reference_draws_are_of_this_density(name, double, study):
    """Stein's identity: E[∇ log p] = 0 and E[(z − E z) ∂ log p/∂z] = −1, in unconstrained coordinates."""
    from reference import reference_draws

    posed = problem(name, FOLDER)
    density = Unconstrained(posed)
    z = density.coordinates(sampled(name, stacked(reference_draws(FOLDER, name)), posed.kwargs))[::2]
    score = torch.cat([vmap(grad(density))(some) for some in z.split(1000)])
    for statistic in (score, (z - z.mean(0)) * score + 1):
        error = statistic.std(0) / len(z) ** 0.5
        assert (statistic.mean(0).abs() < 5 * error).all()
        # A check that could fail: the gradient is known to a few hundredths of its spread.
        assert error.isfinite().all()
