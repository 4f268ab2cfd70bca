"""Products of small matrices, as sums of products of numbers.

A batched product is one call of a library, which costs more than the arithmetic where the matrices are tiny, as a state
space model's are, and which a compiler can join to nothing before or after it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST_TERMS, MOST_PRODUCTS = 4, 64
"""Of an entry of the result, and of a whole product."""


def is_small(left: Tensor, right: Tensor) -> bool:
    """Whether a product of shapes [B, n, k] and [B, k, m] is better taken apart."""
    terms = left.shape[2]
    if not 0 < terms <= MOST_TERMS or left.shape[1] * terms * right.shape[2] > MOST_PRODUCTS:
        return False
    # Half precision is summed in a wider type by the library.
    return left.dtype.is_floating_point and left.dtype.itemsize >= 4


def small_bmm(left: Tensor, right: Tensor) -> Any:
    """The product of shapes [B, n, k] and [B, k, m], in the type of a product; ``NotImplemented`` where it is large."""
    if not is_small(left, right):
        return NotImplemented
    terms = left.shape[2]
    total = left[:, :, 0:1] * right[:, 0:1, :]
    for term in range(1, terms):
        total = total + left[:, :, term : term + 1] * right[:, term : term + 1, :]
    return total


def plain_sum(left: Any, right: Any, *, alpha: float = 1) -> Any:
    """``left + alpha · right`` as two operations; ``NotImplemented`` where ``alpha`` is 1.

    Inductor (torch 2.13) makes one call of a product and such a sum, and forgets ``alpha``.
    """
    return NotImplemented if alpha == 1 else left + right * alpha


DECOMPOSITIONS = {torch.ops.aten.bmm.default: small_bmm, torch.ops.aten.add.Tensor: plain_sum}
"""For :func:`torch.fx.experimental.proxy_tensor.make_fx`."""
