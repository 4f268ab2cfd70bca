"""Exponential decay: semantics of ``torch.optim.lr_scheduler.ExponentialLR``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Exponential(Schedule):
    """Step size times `gamma` to the power of the step."""

    gamma: Annotated[float, Key("factor on the step size, once a step", gt=0, le=1)] = 0.999

    def at(self, time: Time, state: State) -> Any:
        """``gamma ** time``."""
        return self.gamma**time
