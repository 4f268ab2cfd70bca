"""Every shipped model with every guide that it takes, held to the same contract. A new model adds a row to ``MODELS``.

Each row has a log joint density of its own, written by hand.
"""

from __future__ import annotations

import csv
import gzip
import math
from dataclasses import dataclass, replace
from datetime import date
from importlib.resources import files
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

import sweepvi
from sweepvi import registry
from sweepvi.loading import loader
from sweepvi.models.eight_schools import EFFECTS, STANDARD_ERRORS
from sweepvi.problem import Fresh

POSITIVE = {"tau", "sigma", "sigma_county", "sigma_level"}
AUTOGUIDES = tuple(name for name in registry.names("guide") if name not in ("own", "custom"))


def normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - math.log(2 * math.pi) / 2 - torch.as_tensor(sd).log()


def half_normal(x, sd):
    return math.log(2) + normal(x, 0.0, sd)


def half_cauchy(x, scale):
    return math.log(2 / (math.pi * scale)) - torch.log1p((x / scale) ** 2)


def eight_schools(at, centered):
    """Log joint density of the eight schools."""
    effect, error = torch.tensor(EFFECTS).double(), torch.tensor(STANDARD_ERRORS).double()
    mu, tau = at["mu"], at["tau"]
    prior = normal(mu, 0.0, 5.0) + half_cauchy(tau, 5.0)
    if centered:
        theta = at["theta"]
        prior = prior + normal(theta, mu, tau).sum()
    else:
        theta = mu + tau * at["theta_trans"]
        prior = prior + normal(at["theta_trans"], 0.0, 1.0).sum()
    return prior + normal(effect, theta, error).sum()


def radon(at, centered, uranium):
    """Log joint density of the radon model, house by house from the file."""
    data = houses()
    mu, beta, sd, noise = at["mu"], at["beta"], at["sigma_county"], at["sigma"]
    total = normal(mu, 0.0, 10.0) + normal(beta, 0.0, 10.0) + half_normal(sd, 1.0) + half_normal(noise, 1.0)
    of_county = {county: (place, uranium) for place, (county, uranium) in enumerate(sorted(uraniums(data).items()))}
    if uranium:
        total = total + normal(at["gamma"], 0.0, 10.0)
    level = {}
    for county, (place, log_uranium) in of_county.items():
        center = mu + at["gamma"] * log_uranium if uranium else mu
        if centered:
            level[county] = at["alpha"][place]
            total = total + normal(level[county], center, sd)
        else:
            level[county] = center + sd * at["alpha_trans"][place]
            total = total + normal(at["alpha_trans"][place], 0.0, 1.0)
    for house in data:
        total = total + normal(house["log_radon"], level[house["county"]] + beta * house["floor"], noise)
    return total


def shipped_rows(text):
    """The rows of a shipped file."""
    return list(csv.DictReader([line for line in text.splitlines() if not line.startswith("#")]))


def houses():
    """The rows of the shipped file, read in double precision."""
    text = (files("sweepvi") / "models" / "data" / "radon_mn.csv").read_text(encoding="utf-8")
    return [{name: float(value) for name, value in row.items()} for row in shipped_rows(text)]


def uraniums(data):
    return {house["county"]: house["log_uppm"] for house in data}


def months():
    """The rows of the shipped file, in order."""
    text = (files("sweepvi") / "models" / "data" / "uk_drivers.csv").read_text(encoding="utf-8")
    return shipped_rows(text)


def uk_drivers(at, centered):
    """Log joint density of the UK drivers, month by month; the season as a Fourier series of norm 1 over a year."""
    petrol, law, sd, noise = at["petrol"], at["law"], at["sigma_level"], at["sigma"]
    total = normal(petrol, 0.0, 1.0) + normal(law, 0.0, 1.0) + half_normal(sd, 0.1) + half_normal(noise, 0.2)
    total = total + normal(at["waves"], 0.0, 0.5).sum()
    prices = [float(row["log_petrol"]) for row in months()]
    level = torch.tensor(7.0)
    for month, row in enumerate(months()):
        spread = sd if month else 1.0
        if centered:
            total = total + normal(at["level"][month], level, spread)
            level = at["level"][month]
        else:
            total = total + normal(at["level_trans"][month], 0.0, 1.0)
            level = level + spread * at["level_trans"][month]
        angle = 2 * math.pi * (date.fromisoformat(row["month"] + "-01").month - 1) / 12
        season = at["waves"][10] * math.cos(6 * angle) / math.sqrt(12)
        for wave in range(1, 6):
            cosine, sine = math.cos(wave * angle), math.sin(wave * angle)
            season = season + (at["waves"][wave - 1] * cosine + at["waves"][wave + 4] * sine) / math.sqrt(6)
        center = level + season + petrol * (prices[month] - sum(prices) / 192) + law * float(row["seat_belt"])
        total = total + normal(torch.tensor(float(row["log_drivers"]), dtype=torch.float64), center, noise)
    return total


def scans():
    """The shipped images: how many of the 16 points of each pixel are ink, shape [1797, 64], and what they show."""
    packed = (files("sweepvi") / "models" / "data" / "digits.csv.gz").read_bytes()
    rows = shipped_rows(gzip.decompress(packed).decode("utf-8"))
    pixels = [[int(row[f"p{line}{column}"]) for line in range(8) for column in range(8)] for row in rows]
    return torch.tensor(pixels), [int(row["digit"]) for row in rows]


def black():
    return (scans()[0] / 16 >= 0.5).double()


def bernoulli(x, odds):
    return (x * odds - torch.log1p(odds.exp())).sum()


def affine(at, layer, x):
    return x @ at[f"{layer}.weight"].T + at[f"{layer}.bias"]


def digits_vae(at):
    """Log joint density of the images, their latent points and the bias; the decoder has one hidden layer."""
    odds = torch.tanh(affine(at, "decoder.0", at["z"])) @ at["decoder.2.weight"].T + at["bias"]
    return normal(at["bias"], 0.0, 5.0).sum() + normal(at["z"], 0.0, 1.0).sum() + bernoulli(black(), odds)


def digits_sbn(at):
    """Log joint density of the images and their causes."""
    causes = bernoulli(at["z2"], at["decoder.top"]) + bernoulli(at["z1"], affine(at, "decoder.middle", at["z2"]))
    return causes + bernoulli(black(), affine(at, "decoder.pixels", at["z1"]))


@dataclass(frozen=True)
class Row:
    """A model: its keys, the sites that a draw has, with their shapes, and its log joint density."""

    name: str
    settings: dict[str, Any]
    latent: dict[str, tuple[int, ...]]
    derived: dict[str, tuple[int, ...]]
    log_joint: Any
    observed: str
    guides: tuple[str, ...] = AUTOGUIDES
    """Those that go with it: all but the models of digits are too small for networks."""
    estimator: str = "trace"
    binary: bool = False
    """Whether its latent variables are binary; they are real otherwise, or positive."""

    @property
    def node(self):
        return {"name": self.name, **self.settings}

    def problem(self):
        component = registry.build("model", self.node)
        problem = component.problem(loader()).to(torch.float64, torch.device("cpu"))
        if not isinstance(problem.model, Fresh):
            return problem
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return replace(problem, model=problem.model().double())


def weights(problem):
    """The weights of a model's networks, by name."""
    return problem.model.state_dict() if isinstance(problem.model, nn.Module) else {}


def _rows():
    for centered in (False, True):
        sites = {"theta": (8,)} if centered else {"theta_trans": (8,)}
        derived = {} if centered else {"theta": (8,)}
        sites = {"mu": (), "tau": (), **sites}
        yield Row("eight_schools", {"centered": centered}, sites, derived, eight_schools, "y")
    for centered in (False, True):
        for uranium in (False, True):
            sites = {"mu": (), "beta": (), "sigma_county": (), "sigma": (), **({"gamma": ()} if uranium else {})}
            sites |= {"alpha": (85,)} if centered else {"alpha_trans": (85,)}
            derived = {} if centered else {"alpha": (85,)}
            settings = {"centered": centered, "uranium": uranium}
            yield Row("radon", settings, sites, derived, radon, "log_radon")
    for centered in (False, True):
        sites = {"petrol": (), "law": (), "sigma_level": (), "sigma": (), "waves": (11,)}
        sites |= {"level": (192,)} if centered else {"level_trans": (192,)}
        derived = {"season": (12,), **({} if centered else {"level": (192,)})}
        yield Row("uk_drivers", {"centered": centered}, sites, derived, uk_drivers, "log_drivers")
    # A full covariance over the points of 1,797 images does not fit into memory.
    points = {"bias": (64,), "z": (1797, 8)}
    yield Row("digits_vae", {}, points, {}, digits_vae, "x", ("own", "auto_normal", "auto_delta"))
    causes = {"z1": (1797, 32), "z2": (1797, 16)}
    yield Row("digits_sbn", {}, causes, {}, digits_sbn, "x", ("own",), "trace_graph", binary=True)


MODELS = list(_rows())


def label(row):
    return "-".join([row.name, *(k for k, v in row.settings.items() if v)])


every_model = pytest.mark.parametrize("row", MODELS, ids=label)


def test_every_registered_model_has_a_row():
    """But for posteriordb's, whose data do not come with the package: ``test_posteriordb.py`` is theirs."""
    assert {row.name for row in MODELS} == set(registry.names("model")) - {"custom", "posteriordb"}


@pytest.mark.parametrize(
    ("row", "guide"), [pytest.param(row, guide, id=f"{label(row)}-{guide}") for row in MODELS for guide in row.guides]
)
def test_fits_samples_and_runs(row, guide):
    result = sweepvi.fit(row.node, guide=guide, estimator=row.estimator, steps=4, score_draws=3)
    assert result.status == "finished"
    assert result.losses.isfinite().all()
    assert math.isfinite(result.elbo)
    draws = result.sample(3)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        name: (3, *shape) for name, shape in {**row.latent, **row.derived}.items()
    }
    for name, value in draws.items():
        assert value.isfinite().all(), name
        assert name not in POSITIVE or (value > 0).all(), name
    kwargs = result.runnable.problem.kwargs
    assert row.latent.keys() <= result.guide(**kwargs).keys()
    predicted = Predictive(result.model, guide=result.guide, num_samples=2)(**kwargs)
    assert row.observed in predicted
    assert row.derived.keys() <= predicted.keys()


def test_every_guide_goes_with_a_model():
    assert {guide for row in MODELS for guide in row.guides} == set(registry.names("guide")) - {"custom"}


@pytest.mark.parametrize("guide", AUTOGUIDES)
def test_a_guide_builds_afresh(guide):
    """Two guides of one component share no parameter."""
    component, problem = registry.build("guide", {"name": guide}), MODELS[0].problem()
    first, second = component.build(problem.model), component.build(problem.model)
    for guide_of_one_fit in (first, second):
        with pyro.get_param_store().scope():
            guide_of_one_fit(**problem.kwargs)
    tensors = [{param.data_ptr() for param in guide.parameters()} for guide in (first, second)]
    assert tensors[0]
    assert not tensors[0] & tensors[1]


def point(row, seed):
    """A point in the model's support, away from the prior's middle."""
    generator = torch.Generator().manual_seed(seed)
    at = {n: torch.randn(shape, generator=generator, dtype=torch.float64) for n, shape in row.latent.items()}
    if row.binary:
        return {name: (value > 0).double() for name, value in at.items()}
    return {name: value.exp() if name in POSITIVE else value for name, value in at.items()}


def log_prob(program, kwargs, at):
    """Log density of a program where its sites have the given values."""
    with pyro.get_param_store().scope():
        return poutine.trace(poutine.condition(program, data=at)).get_trace(**kwargs).log_prob_sum().item()


def log_joint(row, at):
    problem = row.problem()
    return log_prob(problem.model, problem.kwargs, at)


@pytest.mark.parametrize("seed", [0, 1])
@every_model
def test_log_joint_is_the_one_written_by_hand(row, seed):
    at, problem = point(row, seed), row.problem()
    by_hand = row.log_joint(at | weights(problem), **row.settings).item()
    assert log_prob(problem.model, problem.kwargs, at) == pytest.approx(by_hand, rel=1e-7)


def centered_schools(at):
    """The same point for the centred form, and how many standardised values were scaled, by what."""
    level = at["mu"] + at["tau"] * at["theta_trans"]
    return {"mu": at["mu"], "tau": at["tau"], "theta": level}, 8, at["tau"]


def centered_radon(at):
    log_uranium = torch.tensor([value for _, value in sorted(uraniums(houses()).items())], dtype=torch.float64)
    center = at["mu"] + at["gamma"] * log_uranium if "gamma" in at else at["mu"]
    return {**at, "alpha": center + at["sigma_county"] * at["alpha_trans"]}, 85, at["sigma_county"]


def centered_drivers(at):
    first, *steps = at["level_trans"]
    level = torch.stack([7.0 + first, *(at["sigma_level"] * step for step in steps)]).cumsum(0)
    return {**at, "level": level}, 191, at["sigma_level"]


@pytest.mark.parametrize(
    ("name", "settings", "centered_point"),
    [
        ("eight_schools", {}, centered_schools),
        ("radon", {"uranium": False}, centered_radon),
        ("radon", {"uranium": True}, centered_radon),
        ("uk_drivers", {}, centered_drivers),
    ],
)
def test_both_parameterisations_are_one_density(name, settings, centered_point):
    """p(theta) = p(theta_trans) / tau ^ groups."""
    noncentered, centered = (
        next(row for row in MODELS if row.name == name and row.settings == {**settings, "centered": form})
        for form in (False, True)
    )
    at = point(noncentered, 2)
    moved, scaled, scale = centered_point(at)
    jacobian = scaled * scale.log().item()
    assert log_joint(centered, moved) == pytest.approx(log_joint(noncentered, at) - jacobian, rel=1e-7)


@pytest.mark.parametrize("row", [row for row in MODELS if row.name.startswith("digits")], ids=label)
class TestMinibatches:
    """Densities of a minibatch are scaled up: on average, they are those of all images."""

    def test_a_partition_of_the_images_averages_to_the_full_densities(self, row):
        """Exactly: 1,797 = 3 × 599. Log p − log q of the same latent values, which averages to the ELBO."""
        problem, at = row.problem(), point(row, 3)
        programs = (problem.model, problem.model.guide)
        kwargs = {**problem.kwargs, "batch_size": 599}
        batches = torch.randperm(1797, generator=torch.Generator().manual_seed(4)).chunk(3)
        for program in programs:
            parts = [
                log_prob(
                    program, kwargs, {"digits": batch, **{n: v[batch] if len(v) == 1797 else v for n, v in at.items()}}
                )
                for batch in batches
            ]
            assert sum(parts) / 3 == pytest.approx(log_prob(program, problem.kwargs, at), rel=1e-10)

    def test_the_loss_of_random_minibatches_averages_to_that_of_all_images(self, row):
        problem, loss = row.problem(), registry.build("estimator", {"name": row.estimator}).build().loss
        programs = (problem.model, problem.model.guide)
        with torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
            torch.manual_seed(5)
            batches = torch.tensor([loss(*programs, **{**problem.kwargs, "batch_size": 100}) for _ in range(200)])
            full = torch.tensor([loss(*programs, **problem.kwargs) for _ in range(20)])
        error = (batches.var() / 200 + full.var() / 20).sqrt()
        assert abs(batches.mean() - full.mean()) < 4 * error
        assert error < 0.01 * full.mean()

    def test_fits(self, row):
        node = {**row.node, "batch_size": 100}
        result = sweepvi.fit(node, guide="own", estimator=row.estimator, steps=4, score_draws=3)
        assert result.status == "finished"
        assert math.isfinite(result.elbo)
        assert row.latent.keys() <= result.sample(2).keys()


def test_facts_of_the_radon_data():
    """Counts of Gelman & Hill's Minnesota data; 0.1 was added to each measurement before its logarithm."""
    kwargs = next(row for row in MODELS if row.settings.get("uranium")).problem().kwargs
    county, floor, log_radon = kwargs["county"], kwargs["floor"], kwargs["log_radon"]
    assert len(county) == len(floor) == len(log_radon) == 919
    assert kwargs["counties"] == 85
    assert kwargs["log_uranium"].shape == (85,)
    assert county.unique().tolist() == list(range(85))
    assert floor.unique().tolist() == [0.0, 1.0]
    assert floor.sum() == 153
    assert log_radon.mean().item() == pytest.approx(1.2648, abs=5e-5)
    first_county = (log_radon[county == 0].exp() - 0.1).tolist()
    assert sorted(first_county) == pytest.approx([1.0, 2.2, 2.2, 2.9], abs=1e-5)


def test_uranium_is_constant_within_a_county():
    data = houses()
    assert len({(house["county"], house["log_uppm"]) for house in data}) == 85
    kwargs = next(row for row in MODELS if row.settings.get("uranium")).problem().kwargs
    assert kwargs["log_uranium"].tolist() == pytest.approx([v for _, v in sorted(uraniums(data).items())], rel=1e-6)


def test_double_precision_data_was_not_rounded_to_single():
    kwargs = next(row for row in MODELS if row.settings.get("uranium")).problem().kwargs
    assert kwargs["log_radon"].tolist() == [house["log_radon"] for house in houses()]
    assert kwargs["log_uranium"].tolist() == [value for _, value in sorted(uraniums(houses()).items())]


def test_facts_of_the_uk_drivers():
    """First and last counts of R's UKDriverDeaths; the law came into force on 31 January 1983."""
    rows = months()
    assert len(rows) == 192
    assert [row["month"] for row in rows] == [
        f"{year}-{month:02}" for year in range(1969, 1985) for month in range(1, 13)
    ]
    counts = [math.exp(float(row["log_drivers"])) for row in rows]
    assert counts[:3] == pytest.approx([1687, 1508, 1507])
    assert counts[-3:] == pytest.approx([1575, 1737, 1763])
    assert [row["seat_belt"] for row in rows] == ["0"] * 169 + ["1"] * 23
    assert math.exp(float(rows[0]["log_petrol"])) == pytest.approx(0.10297, abs=1e-5)


def test_facts_of_the_digits():
    """Counts of each digit, and the mean over all pixels, of scikit-learn's load_digits."""
    pixels, digits = scans()
    assert [digits.count(digit) for digit in range(10)] == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert pixels.double().mean().item() == pytest.approx(4.884164579855314, rel=1e-12)
    assert (pixels.min(), pixels.max()) == (0, 16)


def test_facts_of_the_eight_schools():
    """Rubin's table: estimates and standard errors, schools A to H."""
    assert EFFECTS == (28, 8, -3, 7, -1, 1, 18, 12)
    assert STANDARD_ERRORS == (15, 10, 16, 11, 9, 11, 10, 18)


# Means and standard deviations of posteriordb's reference draws of eight_schools-eight_schools_noncentered
# (BSD-3-Clause; 10 chains of 1,000 draws).
THETA_MEAN = torch.tensor([6.1505, 4.9396, 3.9059, 4.7960, 3.6144, 4.0511, 6.3172, 4.8840], dtype=torch.float64)
THETA_SD = torch.tensor([5.6159, 4.6456, 5.2807, 4.7709, 4.6147, 4.7963, 5.0029, 5.3177], dtype=torch.float64)
MU_MEAN, MU_SD = 4.4105, 3.3093
TAU_MEAN, TAU_SD = 3.6021, 3.1985


def test_the_posterior_of_eight_schools():
    result = sweepvi.fit(
        "eight_schools",
        guide="auto_multivariate_normal",
        estimator={"name": "trace", "num_particles": 16, "vectorize_particles": True},
        optimizer={"name": "clipped_adam", "lr": 0.05},
        scheduler={"name": "exponential", "gamma": 0.997},
        steps=1400,
        dtype="float64",
        score_draws=0,
    )
    draws = result.sample(3000)
    theta, mu, tau = draws["theta"], draws["mu"], draws["tau"]
    assert ((theta.mean(0) - THETA_MEAN).abs() < 0.15 * THETA_SD).all()
    assert ((theta.std(0) / THETA_SD - 1).abs() < 0.25).all()
    assert abs(mu.mean().item() - MU_MEAN) < 0.15 * MU_SD
    assert mu.std().item() == pytest.approx(MU_SD, rel=0.25)
    # The guide is normal in log tau, whose posterior has a long tail to the left: however long the fit, it misses
    # about a fifth of tau's mean and a quarter of its spread, and with them some of the first school's spread.
    assert abs(tau.mean().item() - TAU_MEAN) < 0.3 * TAU_SD
    assert tau.std().item() == pytest.approx(TAU_SD, rel=0.4)
