"""Polynomial decay to nothing: semantics of ``torch.optim.lr_scheduler.PolynomialLR``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import minimum
from sweepvi.schedule.finite import Finite
from sweepvi.schedule.schedule import State, Time


@dataclass(frozen=True)
class Polynomial(Finite):
    """Step size times a power of the share of the fit that is left."""

    power: Annotated[float, Key("the power: 1 falls evenly, 2 fast at first", gt=0)] = 2.0

    def at(self, time: Time, state: State) -> Any:
        """``(1 - time / steps) ** power``; after the end 0."""
        return (1.0 - minimum(time, self.length()) / self.length()) ** self.power
