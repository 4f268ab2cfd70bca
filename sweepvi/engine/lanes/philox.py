"""Philox4x32-10, a counter-based random number generator.

Salmon, Moraes, Dror & Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011. It has no state: a number depends on
its key and its counter alone, and so neither on what was drawn before nor on what is drawn beside it.
"""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

Words: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four 32-bit words, each as an int64 tensor."""

WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85


def philox(counter: Words, key: tuple[Tensor | int, Tensor | int], rounds: int = 10) -> Words:
    """Random words, one for each of the counter's; shapes broadcast."""
    first, second, third, fourth = counter
    left, right = key
    for _ in range(rounds):
        # The product wraps beyond 63 bits; its words are right all the same.
        one, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            (other >> 32 & WORD) ^ second ^ left,
            other & WORD,
            (one >> 32 & WORD) ^ fourth ^ right,
            one & WORD,
        )
        left, right = (left + _KEY_STEPS[0]) & WORD, (right + _KEY_STEPS[1]) & WORD
    return first, second, third, fourth
