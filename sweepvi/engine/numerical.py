"""Telling a numerical failure from a bug in the user's code."""

from __future__ import annotations

import traceback

from sweepvi.loading import is_the_users
from sweepvi.private import LinAlgError

MAYBE_NUMERICAL = (ValueError, ArithmeticError, LinAlgError)
"""What torch and Pyro raise where arithmetic fails: a scale that became NaN, a matrix that is not positive definite."""


def is_numerical(error: BaseException) -> bool:
    """Whether one of :data:`MAYBE_NUMERICAL` is the arithmetic's: not a ``ValueError`` raised by the user's code."""
    if isinstance(error, ArithmeticError | LinAlgError):
        return True
    # Pyro raises a model's error again, with the shapes of the trace; its cause is where it came from.
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or not is_the_users(frames[-1].filename)
