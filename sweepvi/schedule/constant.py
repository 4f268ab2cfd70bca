"""The step size as configured, but for the start if asked: semantics of ``torch.optim.lr_scheduler.ConstantLR``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import where
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Constant(Schedule):
    """The optimizer's own step size throughout, with another factor at the start if asked."""

    initial_factor: Annotated[float, Key("factor on the step size at the start", gt=0)] = 1.0
    until: Annotated[int, Key("steps that it lasts", ge=0)] = 0

    def at(self, time: Time, state: State) -> Any:
        """``initial_factor`` before ``until``, then 1."""
        return where(time < self.until, self.initial_factor, 1.0)
