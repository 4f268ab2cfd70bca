"""Philox4x32-10, a counter-based random number generator.

Salmon, Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011. It has no state: a number depends on
its key and its counter alone, and so neither on what was drawn before nor on what is drawn beside it.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

Words: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four 32-bit words, each as an int64 tensor."""

WORD = 0xFFFFFFFF
ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def philox(counter: Words, key: tuple[Tensor | int, Tensor | int]) -> Words:
    """Random words, one for each of the counter's; shapes broadcast. Pure: it can be traced."""
    first, second, third, fourth = counter
    left, right = key
    for _ in range(ROUNDS):
        # The product wraps beyond 63 bits; its words are right all the same. Only what is multiplied has to be
        # free of bits above its 32.
        one, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second = ((other >> 32) ^ second ^ left) & WORD, other
        third, fourth = ((one >> 32) ^ fourth ^ right) & WORD, one
        left, right = (left + _KEY_STEPS[0]) & WORD, (right + _KEY_STEPS[1]) & WORD
    return first, second & WORD, third, fourth & WORD


def philox_in_place(multiplied: Tensor, kept: Tensor, key: Tensor) -> Words:
    """The words of :func:`philox`, in the memory of its arguments.

    Args:
        multiplied: the counter's first and third word, shape [2, …], contiguous.
        kept: its second and fourth, of the same shape.
        key: shape [2, …], as it broadcasts.

    """
    first, third = multiplied
    product, (left, right) = torch.empty_like(kept), key
    for _ in range(ROUNDS):
        torch.mul(first, _MULTIPLIERS[0], out=product[1])
        torch.mul(third, _MULTIPLIERS[1], out=product[0])
        torch.bitwise_right_shift(product, 32, out=multiplied)
        multiplied.bitwise_xor_(kept).bitwise_xor_(key).bitwise_and_(WORD)
        # The product of the third word takes the place of the second, and that of the first the place of the fourth.
        kept, product = product, kept
        left.add_(_KEY_STEPS[0])
        right.add_(_KEY_STEPS[1])
    kept &= WORD
    return first, kept[0], third, kept[1]
