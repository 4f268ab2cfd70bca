"""Schedules at the same time, their factors multiplied.

Semantics of ``torch.optim.lr_scheduler.ChainedScheduler`` for parts that multiply the step size. Torch's other classes
add to it or set it outright, so that their chain depends on the order; here every part is a factor, and none does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sweepvi.schedule.chain import Chain, Parts
from sweepvi.schedule.exponential import Exponential
from sweepvi.schedule.schedule import Schedule, State, Time
from sweepvi.schedule.warmup import Warmup


@dataclass(frozen=True)
class Product(Chain):
    """Several schedules at once, their factors multiplied: by default a warm-up and an exponential decay."""

    parts: Parts = (Warmup(steps=100), Exponential())

    def at(self, time: Time, state: State) -> Any:
        """The product of the parts' factors."""
        return math.prod(self.part_factor(place, time, state) for place in range(len(self.parts)))

    def observe(self, state: State, step: Time, loss: Tensor) -> dict[str, Tensor]:
        """Show the loss to every part."""
        after = dict(state)
        for place in range(len(self.parts)):
            after |= self.part_observed(place, state, step, loss)
        return after

    def over(self, steps: int) -> Schedule:
        """Open lengths of all parts become the fit's."""
        return replace(self, parts=tuple(part.over(self.units(steps)) for part in self.parts))
