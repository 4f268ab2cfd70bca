"""Linear change: semantics of ``torch.optim.lr_scheduler.LinearLR``.

Factors above 1 are allowed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import minimum
from sweepvi.schedule.finite import Finite
from sweepvi.schedule.schedule import State, Time


@dataclass(frozen=True)
class Linear(Finite):
    """Step size along a straight line, by default down to nothing at the end of the fit."""

    initial_factor: Annotated[float, Key("factor on the step size at the start", gt=0)] = 1.0
    final_factor: Annotated[float, Key("factor on the step size at the end, and after it", ge=0)] = 0.0

    def at(self, time: Time, state: State) -> Any:
        """On the line from the initial to the final factor; then the final one."""
        share = minimum(time, self.length()) / self.length()
        return self.initial_factor + (self.final_factor - self.initial_factor) * share
