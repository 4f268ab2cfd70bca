"""Step decay: semantics of ``torch.optim.lr_scheduler.StepLR``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Step(Schedule):
    """Step size times `gamma`, once every so many steps."""

    every: Annotated[int, Key("steps between reductions", ge=1)] = 500
    gamma: Annotated[float, Key("factor on the step size at each reduction", gt=0, le=1)] = 0.5

    def at(self, time: Time, state: State) -> Any:
        """``gamma`` to the power of the reductions so far."""
        return self.gamma ** (time // self.every)
