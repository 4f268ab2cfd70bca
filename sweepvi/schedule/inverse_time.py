"""Inverse-time decay, the step sizes of stochastic approximation.

Robbins & Monro, "A Stochastic Approximation Method", 1951: with powers above 1/2 and up to 1, the step sizes sum to
infinity and their squares do not. Torch has no class for it; ``LambdaLR`` with the same formula does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class InverseTime(Schedule):
    """Step size falling as a power of the step, as Robbins and Monro ask of it."""

    rate: Annotated[float, Key("speed of the fall at the start, a step", gt=0)] = 0.01
    power: Annotated[float, Key("power of the fall; above 0.5 and up to 1 for convergence", gt=0)] = 0.75

    def at(self, time: Time, state: State) -> Any:
        """``(1 + rate * time) ** -power``."""
        return (1.0 + self.rate * time) ** -self.power
