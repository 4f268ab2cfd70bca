"""Numbers about weights, against cases that are known exactly."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest
import torch

from sweepvi.diagnostics import ImportanceWeights, importance_weights, k_limit, pareto_k, psis

F64 = torch.float64
needs_arviz = pytest.mark.skipif(find_spec("arviz_stats") is None, reason="arviz-stats needs Python 3.11")


def normal_weights(scale, shift=0.0, draws=10_000, seed=0):
    """Log p - log q of draws of q, a normal, for the standard normal p: their values, and the weights."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, dtype=F64, generator=generator)
    value = shift + scale * noise
    return value, -value.square() / 2 + noise.square() / 2 + math.log(scale)


@needs_arviz
@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.9, 1.4])
def test_k_hat_is_the_shape_of_a_pareto_tail(shape):
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(200_000, dtype=F64, generator=generator)
    weights = 1 + (uniform.pow(-shape) - 1) / shape
    # Its error is about (1 + k) over the root of the draws in the tail, 3 √S.
    assert pareto_k(weights.log()) == pytest.approx(shape, abs=3 * (1 + shape) / (3 * math.sqrt(200_000)) ** 0.5)


@needs_arviz
@pytest.mark.parametrize(("scale", "shift"), [(0.8, 0.0), (1.2, 0.5), (1.0, -0.7)])
def test_smoothed_weights_turn_draws_of_one_normal_into_those_of_another(scale, shift):
    value, log_weights = normal_weights(scale, shift, draws=100_000)
    found = importance_weights(log_weights)
    mean = (found.smoothed * value).sum()
    assert float(mean) == pytest.approx(0.0, abs=0.02)
    assert float((found.smoothed * value.square()).sum() - mean.square()) == pytest.approx(1.0, abs=0.04)
    assert float(found.smoothed.sum()) == pytest.approx(1.0)
    assert found.k_hat < 0.5


@needs_arviz
def test_k_hat_is_high_where_the_guide_is_too_narrow():
    assert pareto_k(normal_weights(0.4, draws=50_000)[1]) > 0.55
    assert pareto_k(normal_weights(2.0, draws=50_000)[1]) < 0.1


@needs_arviz
def test_the_effective_sample_size_is_that_of_the_weights():
    # Of normals of one variance a distance apart, E w² = exp(distance²).
    found = importance_weights(normal_weights(1.0, 0.6, draws=100_000)[1])
    assert found.ess / found.draws == pytest.approx(math.exp(-0.36), rel=0.02)


@needs_arviz
def test_weights_that_are_all_alike_have_no_tail():
    assert psis(torch.zeros(100, dtype=F64))[1] == 0.0
    found = importance_weights(torch.full((1000,), -3.0, dtype=F64))
    assert (found.k_hat, found.sd, found.ess) == (0.0, 0.0, pytest.approx(1000))


def two_levels():
    """Half of the draws weigh e¹⁰⁰⁰ times as much as the others: the largest are equal, and far from all of them."""
    return torch.arange(10_000, dtype=F64) % 2 * 1000.0


def one_outweighs():
    return torch.cat([normal_weights(0.9)[1], torch.tensor([900.0], dtype=F64)])


def few_outweigh():
    return torch.cat([normal_weights(0.9)[1], torch.full((5,), 900.0, dtype=F64)])


def wild():
    return 1000.0 * normal_weights(0.4)[1]


@needs_arviz
@pytest.mark.parametrize(("weights", "ess"), [(two_levels, 5000), (one_outweighs, 1), (few_outweigh, 5), (wild, 1)])
def test_no_k_hat_is_better_than_a_low_one_where_no_tail_can_be_fitted(weights, ess):
    """The estimate would be 0, or the share in it of its prior, 5 / 310: that of a fit that is very good."""
    found = importance_weights(weights())
    assert found.k_hat is None
    assert found.ess == pytest.approx(ess)
    assert float(found.smoothed.sum()) == pytest.approx(1.0)


@needs_arviz
def test_a_draw_that_outweighs_the_others_is_seen_though_smoothing_hides_it():
    weights = normal_weights(0.9)[1]
    assert importance_weights(weights).largest < 0.001
    weights[0] = 20.0
    found = importance_weights(weights)
    assert found.largest == pytest.approx(1 / (1 + 9999 * math.exp(-20)), abs=1e-5)
    assert found.ess > 9000
    assert found.k_hat < 0.7


@pytest.mark.parametrize(
    ("k_hat", "ess", "usable"),
    [(0.69, 5.0, True), (0.7, 8999.0, False), (1.2, 9000.0, True), (None, 9000.0, False), (0.1, None, False)],
)
def test_weights_are_usable_by_a_low_k_hat_or_if_they_are_nearly_alike(k_hat, ess, usable):
    assert ImportanceWeights(10_000, 0, 0.3, k_hat, ess, 0.001, None).usable == usable


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_counted_and_not_used(value):
    weights = torch.zeros(100, dtype=F64)
    weights[3] = value
    found = importance_weights(weights)
    assert (found.draws, found.nonfinite) == (100, 1)
    assert (found.k_hat, found.sd, found.ess, found.largest, found.smoothed) == (None,) * 5
    assert pareto_k(weights) is None


def test_too_few_weights():
    assert importance_weights(torch.zeros(0, dtype=F64)).k_hat is None
    assert pareto_k(torch.randn(24, dtype=F64)) is None


def test_without_the_package_there_is_no_k_hat(monkeypatch):
    monkeypatch.setattr("sweepvi.diagnostics.find_spec", lambda name: None)
    weights = torch.randn(1000, dtype=F64)
    found = importance_weights(weights)
    assert (found.k_hat, found.ess, found.smoothed) == (None, None, None)
    assert found.sd == pytest.approx(float(weights.std()))


def test_the_limit_of_k_hat_rises_with_the_draws():
    assert [round(k_limit(draws), 3) for draws in (1, 100, 1000, 2155, 10**6)] == [-math.inf, 0.5, 0.667, 0.7, 0.7]
