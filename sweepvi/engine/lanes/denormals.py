"""Numbers too small for a type's exponent, as 0.

A processor takes a hundred times as long for a product of such a number (below 1e-38 in float32) as for any other, and
a hidden Markov model's probabilities are full of them: its step took twice as long. XLA has them as 0, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALLEST = sys.float_info.min


@contextmanager
def denormals_are_zero() -> Iterator[None]:
    """Inside, in this thread, what is too small is 0; not where torch has more threads, which it does not reach."""
    changed = torch.get_num_threads() == 1 and not _are_zero() and torch.set_flush_denormal(True)
    try:
        yield
    finally:
        if changed:
            torch.set_flush_denormal(False)


def _are_zero() -> bool:
    # torch does not tell.
    return _SMALLEST / 2 == 0.0
