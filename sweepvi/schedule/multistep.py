"""Step decay at given steps: semantics of ``torch.optim.lr_scheduler.MultiStepLR``.

Milestones must increase; torch also takes one twice, and reduces twice there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import between, increasing
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class MultiStep(Schedule):
    """Step size times `gamma` at each milestone."""

    milestones: Annotated[tuple[int, ...], Key("steps at which the step size is reduced, increasing", ge=1)] = (
        1000,
        1500,
    )
    gamma: Annotated[float, Key("factor on the step size at each milestone", gt=0, le=1)] = 0.1

    def conflicts(self) -> dict[str, str]:
        """Milestones increase."""
        problems = super().conflicts()
        if not increasing(self.milestones):
            problems["milestones"] = "must increase from one to the next"
        return problems

    def at(self, time: Time, state: State) -> Any:
        """``gamma`` to the power of the milestones reached."""
        return between(time, self.milestones, [self.gamma**reached for reached in range(len(self.milestones) + 1)])
