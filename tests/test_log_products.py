"""Products over time of matrices of logarithms, against Pyro's, whose place they take in a trace."""

from __future__ import annotations

import pytest
import torch
from pyro.distributions import hmm
from torch.func import grad, vmap

from sweepvi import private
from sweepvi.log_products import MOST_STATES, _in_pieces, log_product_of_all

F64 = torch.float64
SHAPES = [(time, 3) for time in (*range(1, 18), 25, 200)] + [(13, states) for states in range(1, MOST_STATES + 1)]


def matrices(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64) * 3


def with_gradient(function, logits, weights):
    leaf = logits.clone().requires_grad_()
    result = function(leaf)
    (result * weights).sum().backward()
    return result.detach(), leaf.grad


@pytest.mark.parametrize(("time", "states"), SHAPES)
def test_they_and_their_gradients_are_pyros(time, states):
    logits, weights = matrices(2, time, states, states), matrices(2, states, states)
    expected = with_gradient(hmm._sequential_logmatmulexp, logits, weights)
    for ours, theirs in zip(with_gradient(log_product_of_all, logits, weights), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_what_cannot_happen_is_as_pyros():
    logits = matrices(9, 3, 3)
    logits[2, 0], logits[5, :, 1], logits[7] = -torch.inf, -torch.inf, -torch.inf
    for some in (logits[:7], logits):
        torch.testing.assert_close(log_product_of_all(some), hmm._sequential_logmatmulexp(some))


def test_they_are_transformed():
    logits = matrices(5, 7, 3, 3)

    def loss(each):
        return log_product_of_all(each).logsumexp((0, 1))

    with private.transformable():
        found = vmap(grad(loss))(logits)
    leaf = logits.clone().requires_grad_()
    hmm._sequential_logmatmulexp(leaf).logsumexp((1, 2)).sum().backward()
    torch.testing.assert_close(found, leaf.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("time", [1, 2, 3, 7, 8, 100, 200])
def test_factors_of_pairs_lie_in_two_pieces_at_every_level(time):
    order = _in_pieces(time)
    while time > 1:
        half = time // 2
        assert sorted(order) == list(range(time))
        assert order[half : 2 * half] == [left + 1 for left in order[:half]]
        assert all(left % 2 == 0 for left in order[:half])
        order = [left // 2 for left in order[:half]] + [half] * (time % 2)
        time = half + time % 2
