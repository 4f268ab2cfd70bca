"""Averages of iterates with polynomially decaying weights, which DoG's authors recommend for all methods of its kind.

Shamir & Zhang, "Stochastic Gradient Descent for Non-smooth Optimization", 2013, section 4, with η = γ = 8::

    x̄ ← (1 − s) x̄ + s x,    s = (γ + 1) / (γ + t)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sweepvi.optim.arithmetic import times
from sweepvi.optim.rule import Step

GAMMA = 8.0


def share(step: Step) -> Any:
    """The weight of iterate ``step`` in the average."""
    return (GAMMA + 1) / (GAMMA + step)


def averaged(average: Tensor, iterate: Tensor, share: Any) -> Tensor:
    """The average after one more iterate."""
    return average + times(iterate - average, share)
