"""Minimizers on functions that are known, each held to the same contract; scipy has the references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize

from sweepvi import registry
from sweepvi.errors import ConfigError
from sweepvi.optim import LBFGS, Minimizer, TrustRegionNewton

F64 = torch.float64
every_minimizer = pytest.mark.parametrize(
    "minimizer",
    [row.component()() for row in registry.rows("optimizer") if issubclass(row.component(), Minimizer)],
    ids=lambda minimizer: type(minimizer).__name__,
)


class Function:
    """A function of torch's, with its gradient and Hessian by autograd; it counts its evaluations."""

    rounding = torch.finfo(F64).eps

    def __init__(self, of):
        self.of, self.evaluations = of, 0

    def __call__(self, x):
        self.evaluations += 1
        value = self.of(x)
        return float(value), torch.func.grad(self.of)(x)

    def hessian_times(self, x, direction):
        return torch.func.jvp(torch.func.grad(self.of), (x,), (direction,))[1]


def searched(minimizer, of, start, most=2000):
    search = minimizer.search(Function(of), torch.as_tensor(start, dtype=F64))
    values = [search.value]
    while not search.ended and len(values) < most:
        search.step()
        values.append(search.value)
    assert values == sorted(values, reverse=True)
    return search, len(values) - 1


def rosenbrock(x):
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()


def test_there_are_two():
    assert registry.build("optimizer", {"name": "lbfgs"}) == LBFGS()
    assert registry.build("optimizer", {"name": "newton"}) == TrustRegionNewton()


@every_minimizer
def test_a_narrow_valley_is_followed_as_scipy_follows_it(minimizer):
    start = np.full(10, -1.2)
    method = "L-BFGS-B" if isinstance(minimizer, LBFGS) else "trust-ncg"
    options = {"jac": optimize.rosen_der} | (
        {} if isinstance(minimizer, LBFGS) else {"hessp": optimize.rosen_hess_prod}
    )
    theirs = optimize.minimize(optimize.rosen, start, method=method, **options)
    ours, steps = searched(minimizer, rosenbrock, start)
    assert ours.ended == "converged"
    assert ours.point == pytest.approx(np.ones(10), abs=1e-4)
    assert float(ours.gradient.abs().max()) <= minimizer.gradient_tolerance
    assert steps <= 1.5 * theirs.nit


@every_minimizer
def test_badly_scaled_quadratics_end_at_their_minimum(minimizer):
    scales = torch.logspace(-2, 2, 8, dtype=F64)
    search, steps = searched(minimizer, lambda x: 0.5 * (scales * (x - 3.0) ** 2).sum(), torch.zeros(8))
    assert search.ended == "converged"
    assert search.point == pytest.approx(np.full(8, 3.0), abs=0.02)
    assert steps < 100


@every_minimizer
def test_where_a_function_is_not_finite_no_step_goes(minimizer):
    search, _ = searched(minimizer, lambda x: (x - x.log()).sum(), [0.001, 30.0])
    assert search.ended == "converged"
    assert search.point == pytest.approx(np.ones(2), abs=1e-3)


@every_minimizer
def test_negative_curvature_is_left_behind(minimizer):
    search, _ = searched(minimizer, lambda x: (0.25 * x**4 - 0.5 * x**2).sum(), [0.01, -0.02])
    assert search.ended == "converged"
    assert search.point == pytest.approx(np.array([1.0, -1.0]), abs=1e-3)


@every_minimizer
def test_rounding_ends_a_search_that_it_hides(minimizer):
    class Rounded(Function):
        rounding = torch.finfo(torch.float32).eps

        def __call__(self, x):
            value, gradient = super().__call__(x)
            noise = 1e-3 * torch.sin(1e6 * x.float())
            return float(torch.tensor(value, dtype=torch.float32)), gradient + noise.to(gradient)

    function = Rounded(lambda x: 1e4 + (x**2).sum())
    search = minimizer.search(function, torch.tensor([3.0, -2.0], dtype=F64))
    for _ in range(50):
        if search.ended:
            break
        search.step()
    assert search.ended
    assert function.evaluations < 300
    assert search.point.abs().max() < 0.1


@every_minimizer
def test_a_search_begins_at_its_end(minimizer):
    search = minimizer.search(Function(lambda x: (x**2).sum()), torch.zeros(3, dtype=F64))
    assert search.ended == "converged"


def test_more_draws_at_the_start_than_at_the_end_are_refused():
    with pytest.raises(ConfigError, match=r"max_draws = 16: must be at least draws, 32"):
        LBFGS(draws=32, max_draws=16)


def test_newton_stays_in_its_region():
    search = TrustRegionNewton(radius=0.1).search(Function(rosenbrock), torch.full((4,), -1.2, dtype=F64))
    before = search.point
    search.step()
    assert 0.0 < float((search.point - before).norm()) <= 0.1 + 1e-9
