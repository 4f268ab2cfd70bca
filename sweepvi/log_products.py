"""Products of many small matrices of logarithms, with time next to itself in memory.

The matrices of a hidden Markov model are three by three, say, for each of hundreds of times. Pyro has them in the order
[T, S, S], of which a processor that takes sixteen numbers at once finds three of a kind side by side. Here they are
[S, S, T], and in an order of times in which the left factors of all pairs lie in a piece, the right ones in another.
Matrices are multiplied in the same pairs, and shifted before by the same maxima: results differ in rounding alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from pyro.ops.special import safe_log
from torch import Tensor

MOST_STATES = 4
"""Matrices of more states are multiplied faster by a library."""


def log_product_of_all(logits: Tensor) -> Tensor:
    """The logarithm of the product of matrices over time, as Pyro's ``_sequential_logmatmulexp``.

    By a tree of depth log T: Särkkä and García-Fernández, Temporal Parallelization of Bayesian Smoothers, 2019.

    Args:
        logits: logarithms of matrices, of shape […, T, S, S].

    Returns:
        That of their product, of shape […, S, S].

    """
    time = logits.shape[-3]
    order = torch.tensor(_in_pieces(time), device=logits.device)
    x = _Reordered.apply(logits, order, order.argsort()).movedim(-3, -1).contiguous()
    while time > 1:
        half = time // 2
        pieces = x.split([half, half, 1] if time % 2 else [half, half], -1)
        product = _log_product(*pieces[:2])
        x = torch.cat([product, pieces[2]], -1) if time % 2 else product
        time = half + time % 2
    return x.squeeze(-1)


def _log_product(left: Tensor, right: Tensor) -> Tensor:
    """The logarithms of matrix products, time by time, of logarithms of shape […, S, S, T]."""
    least = torch.finfo(left.dtype).min  # of no finite number, the maximum would leave NaN
    of_rows = left.detach().amax(-2, keepdim=True).clamp(min=least)
    of_columns = right.detach().amax(-3, keepdim=True).clamp(min=least)
    products = (left - of_rows).exp().unsqueeze(-2) * (right - of_columns).exp().unsqueeze(-4)
    return safe_log(products.sum(-3)) + of_rows + of_columns


@cache
def _in_pieces(time: int) -> list[int]:
    """Times so ordered that the left factors of pairs come first, then the right ones, then the last if it is alone.

    So it is at each level of the tree of products, without moving anything there; the last time is always the last.
    """
    if time == 1:
        return [0]
    pairs = [pair for pair in _in_pieces(time // 2 + time % 2) if pair < time // 2]
    return [2 * pair for pair in pairs] + [2 * pair + 1 for pair in pairs] + [time - 1] * (time % 2)


class _Reordered(torch.autograd.Function):
    """Another order of the third dimension from behind; its derivative is the inverse order, and no sum."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        x: Tensor, order: Tensor, inverse: Tensor
    ) -> Tensor:
        return x[..., order, :, :]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        _, inverse = ctx.saved_tensors
        return grads[0][..., inverse, :, :], None, None
