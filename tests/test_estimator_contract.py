"""Every estimator, held to the same contract: its gradients against exact ones. A new one adds rows to ``rows``.

A row's mean gradient must be within four standard errors of the exact one, over so many draws, 20,000 at the least,
that four standard errors are less than 2 % of it: parameter by parameter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyro
import pytest
import torch
from exact_problems import ELBO, F64, Bound, Conjugate, Discrete, Mixed, Problem, Reversed
from torch import nn

from sweepvi import registry
from sweepvi.estimators.baselines import OWN_PARAMETERS, subtraction
from sweepvi.estimators.costs import CostElbo

LANES = 20_000
NOTICED = 0.02
MOST_CALLS = 80


def given_network(site: str, known: torch.Tensor) -> dict[str, Any]:
    """A baseline as a guide's author would write it, untrained: any function of what was drawn before will do."""
    network = pyro.module(f"{site}_network", nn.Sequential(nn.Linear(1, 1), nn.Flatten(-2)))
    return {"nn_baseline": network, "nn_baseline_input": known.detach()[..., None]}


# what the configuration declares, and what the guide's sites have themselves
BASELINES: dict[str, tuple[dict[str, Any], Any]] = {
    "none": ({}, None),
    "decaying": ({"*": "decaying"}, None),
    "network": ({"*": {"kind": "network", "hidden": [4]}}, None),
    "value": ({"*": {"kind": "value", "value": -2.0}}, None),
    "given_decaying": ({}, lambda site, known: {"use_decaying_avg_baseline": True, "baseline_beta": 0.3}),
    "given_value": ({}, lambda site, known: {"baseline_value": known.detach() * 3 - 2}),
    "given_network": ({}, given_network),
}


@dataclass(frozen=True)
class Row:
    """An estimator on a problem."""

    name: str
    problem: type[Problem]
    keys: dict[str, Any] = field(default_factory=dict)
    bound: Bound = ELBO
    baselines: str = "none"

    def __str__(self) -> str:
        keys = "-".join(f"{key}={value}" for key, value in self.keys.items())
        return f"{self.name}-{self.problem.__name__}-{keys}-{self.baselines}"

    def elbo(self) -> Any:
        declared = BASELINES[self.baselines][0]
        keys = {**self.keys, "baselines": declared} if declared else self.keys
        return registry.build("estimator", {"name": self.name, **keys}).build()

    def copies(self) -> Problem:
        return self.problem(LANES, BASELINES[self.baselines][1])


PARTICLES = ({}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True})
PAIRS = ({"num_particles": 2}, {"num_particles": 2, "vectorize_particles": True})
REPARAMETERISED = (Conjugate, Reversed)
ALL = (Conjugate, Discrete, Mixed)


def rows() -> Iterator[Row]:
    for name, problems, particles in (
        ("trace", ALL, PARTICLES),
        ("trace_graph", ALL, PARTICLES),
        ("trace_mean_field", REPARAMETERISED, PARTICLES),
        ("trace_enum", ALL, PARTICLES),
        ("trace_tmc", REPARAMETERISED, PARTICLES),
        ("rloo", ALL, PAIRS),
        ("stl", REPARAMETERISED, PARTICLES),
    ):
        yield from (Row(name, problem, keys) for problem in problems for keys in particles)
    for baselines in list(BASELINES)[1:]:
        # What these two guides know before the first draw has no dimension for particles.
        particles = PARTICLES[:2] if baselines in ("given_value", "given_network") else PARTICLES
        for problem in (Discrete, Mixed):
            yield from (Row("trace_graph", problem, keys, ELBO, baselines) for keys in particles)
    for name, problems in (("iwae", ALL), ("vimco", ALL), ("dreg", REPARAMETERISED)):
        yield from (Row(name, problem, keys, Bound(2)) for problem in problems for keys in PAIRS)
    # Orders at which no gradient of the problem is so near to zero, by chance, that 2 % of it is lost in the noise.
    # Each problem has one below 0, one between 0 and 1, and one above 1.
    for alpha, problems in (
        (-1.0, (Conjugate,)),
        (-0.5, (Conjugate, Discrete)),
        (-0.3, (Mixed,)),
        (0.5, ALL),
        (1.3, (Conjugate, Discrete)),
        (2.0, (Reversed, Mixed)),
    ):
        keys = {"num_particles": 2, "alpha": alpha}
        yield from (Row("renyi", problem, keys, Bound(2, alpha)) for problem in problems)
    yield from (Row(name, Discrete, {"num_particles": 3}, Bound(3)) for name in ("iwae", "vimco"))


ROWS = list(rows())
ONE_EACH = list({(row.name, row.problem): row for row in ROWS}.values())
# Of the ways to take particles and of Rényi's orders, the last on each problem, with each baseline; others are long.
DISTINCT = list({(row.name, row.problem, row.baselines, row.bound.particles): row for row in ROWS}.values())
every_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=[] if row in DISTINCT else [pytest.mark.long]) for row in ROWS]
)


def assert_unbiased(elbo: Any, row: Row) -> None:
    """Take draws until four standard errors are small enough; then the mean must be exact within them."""
    exact_loss, exact = row.problem().exact(row.bound)
    problem = row.copies()
    losses: list[float] = []
    draws = {name: Estimates() for name in problem.start}
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        elbo.loss(problem.model, problem.guide)
        for name, param in pyro.get_param_store().named_parameters():
            if name.startswith(OWN_PARAMETERS):
                param.data.normal_(0.0, 0.3)  # before any training a network predicts zero, which would prove nothing
        while len(losses) < 5 or (len(losses) < MOST_CALLS and not _precise(draws, exact)):
            losses.append(elbo.loss_and_grads(problem.model, problem.guide) / LANES)
            for name, found in draws.items():
                found.add(pyro.param(name).grad.double())
                pyro.param(name).grad = None
    for name, found in draws.items():
        mean, error = found.mean()
        assert bool(((mean - exact[name]).abs() < 4 * error).all()), f"{name}: biased: {mean}, not {exact[name]}"
    assert _precise(draws, exact), "so noisy that an error of 2 % would not be noticed"
    values = torch.tensor(losses).double()
    rounding = 1e-5 * abs(exact_loss)
    assert abs(values.mean() - exact_loss) < 6 * values.std() / len(values) ** 0.5 + rounding, "another objective"


class Estimates:
    """Sums over all lanes' estimates of a parameter's gradient."""

    def __init__(self) -> None:
        self.number, self.sum, self.squares, self.largest = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, found: torch.Tensor) -> None:
        self.number += len(found)
        self.sum, self.squares = self.sum + found.sum(0), self.squares + found.square().sum(0)
        self.largest = torch.maximum(self.largest, found.abs().amax(0))

    def mean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean estimate, and its standard error: with rounding, as some gradients have no noise."""
        mean = self.sum / self.number
        variance = (self.squares / self.number - mean.square()).clamp(min=0.0)
        return mean, (variance / (self.number - 1)).sqrt() + 1e-5 * self.largest


def _precise(draws: dict[str, Estimates], exact: dict[str, torch.Tensor]) -> bool:
    return all(bool((4 * found.mean()[1] < NOTICED * exact[name].abs()).all()) for name, found in draws.items())


def test_every_estimator_that_says_it_is_unbiased_has_a_row():
    unbiased = {row.name for row in registry.rows("estimator") if row.component().unbiased}
    others = {"energy_distance"}  # no objective of a table of outcomes: see test_pyro_objectives.py
    assert {row.name for row in ROWS} == unbiased - others


def test_the_exact_gradients_are_exact():
    """The quadrature against a polynomial, of which it knows nothing."""
    leaves = {name: torch.tensor(value, dtype=F64, requires_grad=True) for name, value in Conjugate.start.items()}
    loss = Conjugate.closed_form(leaves)
    loss.backward()
    exact_loss, exact = Conjugate().exact()
    assert exact_loss == pytest.approx(loss.item(), rel=1e-10)
    for name, leaf in leaves.items():
        assert exact[name].item() == pytest.approx(leaf.grad.item(), rel=1e-10)


@every_row
def test_the_mean_gradient_is_exact(row):
    assert_unbiased(row.elbo(), row)


class Scaled:
    """A wrong estimator: its gradient is 2 % too large, which is just what is to be noticed."""

    def __init__(self, elbo):
        self.loss, self.inner = elbo.loss, elbo

    def loss_and_grads(self, model, guide):
        loss = self.inner.loss_and_grads(model, guide)
        for name in list(pyro.get_param_store()):
            if pyro.param(name).grad is not None:
                pyro.param(name).grad *= 1 + NOTICED
        return loss


@pytest.mark.parametrize("row", ONE_EACH, ids=str)
def test_a_gradient_two_percent_too_large_is_noticed(row):
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(Scaled(row.elbo()), row)


class Undetached(CostElbo):
    """A wrong estimator: through the costs, gradient flows."""

    def surrogate_loss(self, evaluations):
        total = 0.0
        for one in evaluations:
            leak = one.path - one.path.detach()
            total = total - one.path - sum((term.score * (term.cost + leak)).sum() for term in one.terms.values())
        return total


class Detached(Undetached):
    """The same without the fault."""

    def surrogate_loss(self, evaluations):
        return -sum(one.path + sum((t.score * t.cost).sum() for t in one.terms.values()) for one in evaluations)


def test_costs_that_carry_gradient_are_noticed():
    row = Row("trace_graph", Discrete)
    assert_unbiased(Detached(), row)
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(Undetached(), row)


def test_a_baseline_that_carries_gradient_is_noticed():
    class Leaky(Discrete):
        def infer(self, site, known=None):
            return {"baseline": {"baseline_value": self.param("logit_a")}}

    with pytest.raises(AssertionError, match="logit_a: biased"):
        assert_unbiased(Row("trace_graph", Leaky).elbo(), Row("trace_graph", Leaky))


def test_a_baseline_that_knows_the_draw_is_noticed(monkeypatch):
    row = Row("trace_graph", Discrete, baselines="network")
    monkeypatch.setattr(
        subtraction, "features", lambda site, trace, shape: trace.nodes[site]["value"][..., None].float()
    )
    with pytest.raises(AssertionError, match="biased"):
        assert_unbiased(row.elbo(), row)


@pytest.mark.parametrize("vectorize", [False, True], ids=["loop", "vectorized"])
@pytest.mark.parametrize("problem", ALL)
@pytest.mark.parametrize("name", ["trace", "trace_graph"])
def test_particles_divide_the_variance(name, problem, vectorize):
    one = variance(Row(name, problem))
    four = variance(Row(name, problem, {"num_particles": 4, "vectorize_particles": vectorize}))
    for parameter in problem.start:
        assert float((four[parameter] / one[parameter]).mean()) == pytest.approx(1 / 4, rel=0.1)


def variance(row: Row) -> dict[str, torch.Tensor]:
    copies = row.copies()
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        row.elbo().loss_and_grads(copies.model, copies.guide)
        return {name: pyro.param(name).grad.var(0) for name in copies.start}


@pytest.mark.parametrize("name", registry.names("estimator"))
def test_build_returns_a_fresh_object(name):
    """Pyro's objects remember the first model they see: one that served two fits would fail the second."""
    component = registry.build("estimator", {"name": name})
    assert component.build() is not component.build()
