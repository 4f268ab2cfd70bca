"""Geometries against closed forms, SciPy and densities written by hand; and whitened models in fits."""

from __future__ import annotations

import math
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from densities import Density, covariance
from lane_parity import recipe
from lane_programs import mixture
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO
from scipy import optimize
from torch.distributions import biject_to
from torch.func import grad, jacrev

import sweepvi
from sweepvi.cli import main
from sweepvi.engine import geometry as places
from sweepvi.engine import log_joint
from sweepvi.engine.log_joint import log_joint_of
from sweepvi.errors import ConfigError
from sweepvi.geometry import AffineMap, whitened
from sweepvi.geometry.laplace import Laplace
from sweepvi.geometry.lbfgs import ascend
from sweepvi.geometry.low_rank import _probed
from sweepvi.geometry.newton import finish
from sweepvi.geometry.pathfinder import Pathfinder
from sweepvi.geometry.standardize import Standardize
from sweepvi.programs import default_dtype
from sweepvi.recipe import reseeded
from sweepvi.results import FitResult
from sweepvi.sweep.program import program_of

F64 = torch.float64
Y = torch.tensor([0.3, -1.2, 0.7, 2.0], dtype=F64)
PROGRAMS = Path(__file__).parent / "programs"
OWN = PROGRAMS / "raw_param.py"
QUICK = {"steps": 3, "score_draws": 20, "posterior_draws": 0, "restarts": 1, "dtype": "float64", "optimizer": "adam"}


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# The map.


def maps():
    loc, scale = seeded(4), seeded(4, seed=1).exp()
    factor = torch.tril(seeded(4, 4, seed=2), -1) + torch.diag(seeded(4, seed=3).exp())
    directions, stretch = torch.linalg.qr(seeded(4, 2, seed=4))[0], torch.tensor([0.1, 7.0], dtype=F64)
    return {
        "scale": AffineMap(loc, scale),
        "factor": AffineMap(loc, scale, factor),
        "directions": AffineMap(loc, scale, None, directions, stretch),
        "all": AffineMap(loc, scale, factor, directions, stretch),
    }


@pytest.mark.parametrize("name", maps())
def test_volume_inverse_and_density_of_a_map(name):
    affine, z = maps()[name], seeded(3, 4, seed=5)
    jacobian = torch.autograd.functional.jacobian(affine, z[0])
    torch.testing.assert_close(affine.log_volume(), torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(affine.inverse(affine(z)), z)
    normal = torch.distributions.MultivariateNormal(affine.loc, jacobian @ jacobian.mT)
    torch.testing.assert_close(affine.log_density(affine(z)), normal.log_prob(affine(z)))


# A model's log joint in unconstrained coordinates.


def supports(y):
    """Many supports, one of which depends on another draw."""
    a = pyro.sample("a", dist.Gamma(2.0, 1.0))
    b = pyro.sample("b", dist.Uniform(-a, 2.0 * a))
    c = pyro.sample("c", dist.Dirichlet(torch.ones(3)))
    ordered = pyro.sample("ordered", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    corr = pyro.sample("corr", dist.LKJCholesky(3, 2.0))
    pyro.deterministic("total", ordered.sum(-1))
    pyro.factor("bound", -0.5 * (ordered**2).sum(-1) + corr[..., 2, 0])
    with pyro.plate("data", len(y)):
        level = pyro.sample("level", dist.Normal(b, a))
        pyro.sample("y", dist.Normal(level, c[..., 0] + 0.5), obs=y)


SIZES = {"a": 1, "b": 1, "c": 2, "ordered": 3, "corr": 3, "level": 4}


def values_of(x):
    """Values by site, and as many numbers as x has that say the same."""
    u = dict(zip(SIZES, x.split(list(SIZES.values())), strict=True))
    a = u["a"][0].exp()
    b = -a + 3.0 * a * torch.sigmoid(u["b"][0])
    c = biject_to(constraints.simplex)(u["c"])
    ordered = biject_to(constraints.ordered_vector)(u["ordered"])
    corr = biject_to(constraints.corr_cholesky)(u["corr"])
    values = {"a": a, "b": b, "c": c, "ordered": ordered, "corr": corr, "level": u["level"]}
    low = torch.tril_indices(3, 3, -1).unbind()
    free = [a[None], b[None], c[:2], ordered, corr[low], u["level"]]
    return values, torch.cat(free)


def by_hand(x):
    """The log joint at the values, with the volume of x ↦ values by its Jacobian."""
    values, _ = values_of(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: values_of(x)[1], x)
    with default_dtype(F64):
        trace = poutine.trace(poutine.condition(supports, data=values)).get_trace(Y)
        return trace.log_prob_sum() + torch.linalg.slogdet(jacobian).logabsdet


@pytest.fixture(scope="module")
def of_supports():
    """Coordinates of the model, and points with the log joint, its gradients and Hessian at them."""
    with log_joint_of(recipe(supports, (Y,))) as found:
        x = 0.7 * seeded(3, found.size, seed=6)
        values, gradients = found(x)
        step = torch.zeros_like(x[0])
        step[0] = 1e-5
        slopes = (found((x[0] + step)[None])[1] - found((x[0] - step)[None])[1])[0] / 2e-5
        return found.coordinates, x, values, gradients, found.hessian(x[0]), slopes


def test_a_log_joint_is_the_models_with_volumes(of_supports):
    _, x, values, *_ = of_supports
    expected = torch.stack([by_hand(row) for row in x])
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-9)


def test_gradients_and_hessian_are_its_derivatives(of_supports):
    *_, hessian, slopes = of_supports
    torch.testing.assert_close(hessian, hessian.mT)
    torch.testing.assert_close(hessian[0], slopes, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vectorized", [False, True])
def test_a_whitened_models_density_is_that_of_its_own(of_supports, vectorized):
    """With the map's volume, also of many draws at once in a plate around the model."""
    coordinates, x, values, *_ = of_supports
    affine = AffineMap(seeded(coordinates.size, seed=7), seeded(coordinates.size, seed=8).exp())
    z = affine.inverse(x)
    model = whitened(supports, coordinates, affine)
    if vectorized:

        def guide(y):
            pyro.sample("whitened", dist.Delta(z[:, None], event_dim=1))

        elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
        assert elbo.loss(model, guide, Y) == pytest.approx(-float((values + affine.log_volume()).mean()), rel=1e-7)
        return
    trace = poutine.trace(poutine.condition(model, data={"whitened": z[0]})).get_trace(Y)
    torch.testing.assert_close(trace.log_prob_sum(), values[0] + affine.log_volume())
    assert trace.nodes["a"]["value"] > 0
    assert "total" in trace.nodes


def test_discrete_variables_are_summed_out():
    with log_joint_of(recipe(mixture, (Y,), estimator="trace_enum")) as found:
        x = seeded(2, 3)
        values, _ = found(x)
    stick = biject_to(constraints.simplex)
    for row, value in zip(x, values, strict=True):
        weight = stick(row[2:])
        each = [weight[k].log() + dist.Normal(row[k], 1.0).log_prob(Y) for k in (0, 1)]
        prior = dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).log_prob(row[:2]).sum()
        volume = stick.log_abs_det_jacobian(row[2:], weight)
        torch.testing.assert_close(value, prior + torch.stack(each).logsumexp(0).sum() + volume)


@pytest.mark.parametrize(("model", "estimator"), [(supports, "trace"), (mixture, "trace_enum")])
def test_second_derivatives_are_those_of_the_traced_gradient(model, estimator, monkeypatch):
    """And not of the model, run again for each, nor differences of gradients."""
    with log_joint_of(recipe(model, (Y,), estimator=estimator)) as found:
        x = 0.7 * seeded(found.size, seed=7)
        expected = -jacrev(grad(found._density._loss))(x)
        for other in ("jacrev", "differences"):
            monkeypatch.setattr(log_joint, other, lambda *_: pytest.fail("not by the trace"))
        torch.testing.assert_close(found.hessian(x), expected, rtol=1e-6, atol=1e-6)
        directions = seeded(3, found.size, seed=8)
        torch.testing.assert_close(found.hessian_times(x, directions), directions @ expected, rtol=1e-6, atol=1e-6)


def branching(y):
    x = pyro.sample("x", dist.Normal(0.0, 2.0))
    if x > 100.0:
        x = x * 2.0
    pyro.sample("y", dist.Normal(x, torch.ones(len(y))).to_event(1), obs=y)


def test_a_model_that_branches_is_evaluated_as_it_is():
    precision = 0.25 + len(Y)
    with log_joint_of(recipe(branching, (Y,))) as found:
        assert type(found._density).__name__ == "_EagerDensity"
        located = Laplace(starts=2).locate(found)
        torch.testing.assert_close(
            found.hessian_times(torch.ones(1, dtype=F64), torch.full((1, 1), 3.0, dtype=F64)),
            torch.full((1, 1), -3.0 * precision, dtype=F64),
        )
    torch.testing.assert_close(located.affine.loc, (Y.sum() / precision)[None], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(covariance(located.affine), torch.full((1, 1), 1 / precision, dtype=F64))


# The same normal in any coordinates.


def schools(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def evidence(y):
    cov = 2.0 * torch.eye(len(y), dtype=F64) + 1.0
    return float(torch.distributions.MultivariateNormal(torch.zeros(len(y), dtype=F64), cov).log_prob(y))


ESTIMATORS = [
    {"name": "trace"},
    {"name": "stl", "num_particles": 4},
    {"name": "trace", "num_particles": 3, "vectorize_particles": True},
    {"name": "trace_mean_field", "num_particles": 2},
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: f"{e['name']}-{e.get('vectorize_particles', '')}")
def test_a_normal_posterior_is_exact_from_the_start(estimator):
    """Every draw then has the same weight, the evidence; and sticking the landing no noise."""
    still = {**QUICK, "optimizer": {"name": "sgd", "lr": 1e-7}}
    result = sweepvi.fit(
        schools, (Y,), geometry="laplace", guide="auto_multivariate_normal", estimator=estimator, **still
    )
    torch.testing.assert_close(result.losses, torch.full((3,), -evidence(Y), dtype=F64), rtol=1e-5, atol=1e-5)
    assert result.elbo == pytest.approx(evidence(Y), abs=1e-4)
    assert result.elbo_se < 1e-4


@pytest.mark.parametrize("geometry", ["none", "standardize", "pathfinder"])
def test_elbos_are_on_one_scale(geometry):
    """A fit ends at the evidence, whatever the coordinates."""
    result = sweepvi.fit(
        schools,
        (Y,),
        geometry=geometry,
        guide="auto_multivariate_normal",
        estimator={"name": "stl", "num_particles": 2},
        optimizer={"name": "adam", "lr": 0.05},
        scheduler="cosine",
        **{key: value for key, value in QUICK.items() if key not in ("optimizer", "steps")},
        steps=400,
    )
    assert result.elbo == pytest.approx(evidence(Y), abs=0.01)


# Searches.


def stiff(size=20, condition=1e11):
    basis = torch.linalg.qr(seeded(size, size))[0]
    values = torch.logspace(0, -math.log10(condition), size, dtype=F64)
    cov, mean = basis @ torch.diag(values) @ basis.mT, seeded(size, seed=1)
    precision = basis @ torch.diag(1 / values) @ basis.mT
    return Density(lambda x: -0.5 * (x - mean) @ precision @ (x - mean), size), mean, cov


def test_laplace_is_exact_where_coordinates_are_bad():
    density, mean, cov = stiff()
    located = Laplace(starts=4).locate(density)
    assert located.notes == ()
    [mode] = located.modes
    torch.testing.assert_close(located.affine.loc, mean, rtol=0, atol=1e-3)
    whitened = located.affine.inverse(torch.linalg.cholesky(cov).mT + located.affine.loc)
    torch.testing.assert_close(whitened @ whitened.mT, torch.eye(20, dtype=F64), rtol=0, atol=1e-3)
    log_det = -torch.arange(20, dtype=F64).sum() * 11 / 19 * math.log(10)
    assert mode.log_evidence == pytest.approx(float(10 * math.log(2 * math.pi) + 0.5 * log_det), abs=1e-3)


def logistic():
    x = torch.cat([torch.ones(60, 1, dtype=F64), seeded(60, 3) * torch.tensor([1.0, 20.0, 0.01], dtype=F64)], 1)
    y = (seeded(60, seed=9) > 0.2).double()
    return lambda b: (y * (x @ b) - torch.nn.functional.softplus(x @ b)).sum() - 0.005 * (b * b).sum()


def test_searches_end_where_scipys_do():
    function = logistic()
    density = Density(function, 4)

    def minus(b):
        values, gradients = density(torch.as_tensor(b)[None])
        return -float(values[0]), -gradients[0].numpy()

    start = torch.zeros(4, dtype=F64).numpy()
    theirs = optimize.minimize(minus, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    paths = ascend(density, density.starts(3, 0))
    for path in paths:
        assert float(path.values[-1]) == pytest.approx(-theirs.fun, abs=0.01)
        point, curvature, arrived = finish(density, path.points[-1])
        assert arrived
        torch.testing.assert_close(point, torch.as_tensor(theirs.x), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            curvature.factor @ curvature.factor.mT, torch.linalg.inv(-density.hessian(point)), rtol=1e-6, atol=1e-9
        )


def two_modes():
    one = torch.distributions.MultivariateNormal(
        torch.tensor([-3.0, 0.0], dtype=F64), torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=F64)
    )
    other = torch.distributions.MultivariateNormal(
        torch.tensor([4.0, 1.0], dtype=F64), torch.diag(torch.tensor([0.5, 2.0], dtype=F64))
    )

    def log_density(normal, x):
        # As its own log_prob, which checks the values of its arguments.
        apart = x - normal.loc
        return normal.log_prob(normal.loc) - 0.5 * apart @ normal.precision_matrix @ apart

    return Density(
        lambda x: torch.logaddexp(math.log(0.3) + log_density(one, x), math.log(0.7) + log_density(other, x)), 2
    )


def test_both_modes_are_found_with_their_evidence():
    located = Laplace().locate(two_modes())
    assert [mode.log_evidence for mode in located.modes] == pytest.approx([math.log(0.7), math.log(0.3)], abs=1e-3)
    assert sum(mode.found for mode in located.modes) == 16
    torch.testing.assert_close(located.affine.loc, torch.tensor([4.0, 1.0], dtype=F64), rtol=0, atol=1e-3)


def test_pathfinder_has_the_moments_of_both_modes():
    located = Pathfinder().locate(two_modes())
    assert len(located.modes) == 2
    torch.testing.assert_close(located.affine.loc, torch.tensor([1.9, 0.7], dtype=F64), rtol=0, atol=0.3)
    assert float(covariance(located.affine)[0, 0]) == pytest.approx(0.65 + 0.21 * 49, rel=0.1)


def test_pathfinder_finds_a_normal():
    density, _, cov = stiff(8, 1e6)
    located = Pathfinder().locate(density)
    whitened = located.affine.inverse(torch.linalg.cholesky(cov).mT + located.affine.loc)
    assert located.notes == ()
    torch.testing.assert_close(whitened @ whitened.mT, torch.eye(8, dtype=F64), rtol=0, atol=0.25)


def centred(x):
    """Log joint of a hierarchical model, log scale and eight effects, that has no mode: a pole where they are equal."""
    data = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=F64)
    log_tau, mu, theta = x[0], x[1], x[2:]
    prior = log_tau - torch.log1p((log_tau.exp() / 5.0) ** 2) - 0.5 * (mu / 5.0) ** 2
    effects = -8 * log_tau - 0.5 * ((theta - mu) ** 2).sum() * (-2 * log_tau).exp()
    return prior + effects - 0.5 * (((data - theta) / 12.0) ** 2).sum()


def test_where_there_is_no_mode_laplace_says_so_and_draws_are_finite():
    density = Density(centred, 10)
    located = Laplace(starts=4).locate(density)
    assert located.modes == ()
    assert "no mode was found" in located.notes[0]
    assert bool(density(located.affine(seeded(200, 10)))[0].isfinite().all())


def test_pathfinder_covers_what_has_no_mode():
    """Mean and standard deviation of mu are 4.8 and 3.4, by quadrature; of the log scale 0.9 and 1.2."""
    density = Density(centred, 10)
    located = Pathfinder().locate(density)
    assert located.modes == ()
    assert located.affine.loc[:2].tolist() == pytest.approx([0.9, 4.8], abs=1.0)
    assert float(covariance(located.affine)[1, 1]) == pytest.approx(3.4**2, rel=0.4)
    assert bool(density(located.affine(seeded(200, 10)))[0].isfinite().all())


def large(size=2000):
    """A normal of diagonal and low rank, with scales from 1/30 to 30."""
    basis = torch.linalg.qr(seeded(size, 4))[0]
    extra = torch.tensor([1e3, 30.0, -0.9, -0.99], dtype=F64)
    scale, mean = seeded(size, seed=1).exp(), seeded(size, seed=2)

    def function(x):
        z = (x - mean) / scale
        return -0.5 * (z @ z - ((z @ basis) ** 2 * (extra / (1 + extra))).sum())

    truth = AffineMap(mean, scale, None, basis, (1 + extra).sqrt())
    return Density(function, size, torch.zeros(1, size, dtype=F64)), truth


def test_laplace_of_many_coordinates_is_diagonal_and_low_rank():
    density, truth = large()
    located = Laplace(starts=2).locate(density)
    assert located.notes == ()
    assert located.affine.factor is None
    assert located.affine.directions.shape[1] <= 40
    z = truth.inverse(located.affine(seeded(100, 2000, seed=3)))
    lost = located.affine.log_density(truth(z)) - truth.log_density(truth(z))
    assert float(((located.affine.loc - truth.loc) / truth.scale).abs().max()) < 0.05
    assert float(lost.mean()) < 3.0  # nats of 2,000 coordinates


def test_a_probed_diagonal_is_right_in_any_scale():
    density, truth = large(300)
    exact = -density.hessian(truth.loc).diagonal()
    assert float((-_probed(density, truth.loc, 0) / exact - 1).abs().median()) < 0.3


def test_standardize_scales_each_coordinate_where_guides_start():
    scale = torch.tensor([1e-3, 1.0, 50.0, 1.0, 1.0], dtype=F64)
    starts = torch.ones(16, 5, dtype=F64)
    starts[0] = torch.inf

    def function(x):
        return -0.5 * ((x[:3] / scale[:3]) ** 2).sum() + 0.5 * x[3] ** 2 + 0.0 * x[4]

    located = Standardize().locate(Density(function, 5, starts))
    torch.testing.assert_close(located.affine.loc, starts[1])
    torch.testing.assert_close(located.affine.scale, scale)
    assert located.notes == ("geometry: no curvature at the start along 1 of 5 coordinates; their scale is 1",)


# Where there is no geometry.


def with_param(y):
    level = pyro.param("level", torch.tensor(0.0))
    pyro.sample("y", dist.Normal(pyro.sample("x", dist.Normal(level, 1.0)), torch.ones(4)).to_event(1), obs=y)


def in_minibatches(y):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample_size=2) as rows:
        pyro.sample("y", dist.Normal(x, 1.0), obs=y[rows])


def counted(y):
    n = pyro.sample("n", dist.Poisson(2.0))
    pyro.sample("y", dist.Normal(n + pyro.sample("x", dist.Normal(0.0, 1.0)), torch.ones(4)).to_event(1), obs=y)


def nowhere(y):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x, torch.ones(4), validate_args=False).to_event(1), obs=y * torch.nan)


def without_variables(y):
    pyro.sample("y", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=y)


def own_guide(y):
    pyro.sample("mu", dist.Delta(pyro.param("mu_at", torch.tensor(0.0))))
    with pyro.plate("schools", len(y)):
        pyro.sample("theta", dist.Normal(pyro.param("at", torch.tensor(0.0)), 1.0))


REFUSED = {
    "parameters": (with_param, "auto_normal", "the model has parameters of its own: level"),
    "minibatches": (in_minibatches, "auto_normal", "plate data takes minibatches"),
    "discrete": (counted, "auto_normal", r"n \(Poisson\) is discrete, and not summed over"),
    "not finite": (nowhere, "auto_normal", "not finite at any starting point"),
    "nothing": (without_variables, "auto_normal", "no continuous latent variable"),
    "own guide": (schools, own_guide, "a geometry is for automatic guides. Use geometry=none"),
}


@pytest.mark.parametrize("geometry", ["standardize", "laplace", "pathfinder"])
@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_geometry_is_told_so(why, geometry):
    model, guide, message = REFUSED[why]
    with pytest.raises(ConfigError, match=message) as caught:
        sweepvi.fit(model, (Y,), geometry=geometry, guide=guide, **QUICK)
    [problem] = caught.value.problems
    assert problem.key == ("guide" if why == "own guide" else "geometry")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=custom", f"model.path={OWN}:model", f"model.data={OWN}:data"],
         "geometry = 'laplace': cannot be had here: "),
        (["model=eight_schools", "geometry.starts=0"], "geometry.starts = 0: must be "),
        (["model=digits_vae", "guide=own"], "geometry"),
    ],
    ids=["parameters", "key", "own guide"],
)  # fmt: skip
def test_the_command_answers_in_a_line_before_it_writes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main([*words, "geometry=laplace"]))
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert len(said.err.strip().splitlines()) == 1
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


# In fits.


def anew(made):
    """Where a recipe is fitted, found and not remembered."""
    places._KNOWN.places.clear()
    return places.place_of(made)


def same(one, other):
    return all(torch.equal(one.state_dict()[name], value) for name, value in other.state_dict().items())


@pytest.mark.parametrize("geometry", ["standardize", "laplace", "pathfinder"])
def test_coordinates_are_the_same_under_every_seed(geometry):
    made = recipe(schools, (Y,), geometry=geometry)
    found = anew(made)
    assert same(found.affine, anew(reseeded(made, 5)).affine)
    assert found.evaluations > 0


def test_several_fits_each_have_their_own_geometry():
    """Also where their guides have parameters of the same names and shapes, as one program would."""
    settings = [{"geometry": name} for name in ("none", "laplace")]
    common = QUICK | {"guide": "auto_multivariate_normal"}
    together = sweepvi.fit_many(schools, (Y,), settings=settings, **common)
    alone = [sweepvi.fit(schools, (Y,), **each, **common) for each in settings]
    assert [one.elbo for one in together] == pytest.approx([one.elbo for one in alone], rel=1e-12)
    assert together[0].elbo < together[1].elbo - 0.1
    nodes = [{**recipe(schools, (Y,)).config, "geometry": {"name": name}} for name in ("none", "laplace")]
    assert program_of(nodes[0]) != program_of(nodes[1])


def test_coordinates_are_found_once_for_all_restarts(monkeypatch):
    calls = []
    locate = Laplace.locate

    def counting(self, log_joint):
        calls.append(log_joint.size)
        return locate(self, log_joint)

    monkeypatch.setattr(Laplace, "locate", counting)
    places._KNOWN.places.clear()
    result = sweepvi.fit(schools, (Y,), geometry="laplace", **{**QUICK, "restarts": 3})
    assert len(result.restarts) == 3
    assert calls == [5]
    sweepvi.fit(schools, (Y,), geometry="laplace", estimator={"name": "stl", "num_particles": 2}, **QUICK)
    assert calls == [5]


def test_a_saved_fit_loads_draws_and_runs_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sweepvi.fit("eight_schools", geometry="laplace", folder=tmp_path / "run", **QUICK)
    assert result.config["geometry"] == {"name": "laplace", "starts": 16, "full": 1000, "seed": 0}
    places._KNOWN.places.clear()
    loaded = FitResult.load(tmp_path / "run")
    draws = loaded.sample(4)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "mu": (4,),
        "tau": (4,),
        "theta_trans": (4, 8),
        "theta": (4, 8),
    }
    assert bool((draws["tau"] > 0).all())
    assert all(torch.equal(draws[name], value) for name, value in result.sample(4).items())
    places._KNOWN.places.clear()
    assert main([f"rerun={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    again = FitResult.load(tmp_path / "again")
    capsys.readouterr()
    assert torch.equal(again.losses, result.losses)
    assert all(torch.equal(again.params[name], value) for name, value in result.params.items())
    assert again.elbo == result.elbo
