"""Piecewise constant factors. Torch has no class for it; ``LambdaLR`` with a table does the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import between, increasing
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Piecewise(Schedule):
    """A factor of your own between each two milestones."""

    milestones: Annotated[tuple[int, ...], Key("steps at which the next factor begins, increasing", ge=1)] = (
        1000,
        1500,
    )
    factors: Annotated[tuple[float, ...], Key("factors on the step size, one more than milestones", ge=0)] = (
        1.0,
        0.3,
        0.1,
    )

    def conflicts(self) -> dict[str, str]:
        """Milestones increase, and part the factors."""
        problems = super().conflicts()
        if not increasing(self.milestones):
            problems["milestones"] = "must increase from one to the next"
        if len(self.factors) != len(self.milestones) + 1:
            problems["factors"] = f"must be one more than the milestones: {len(self.milestones) + 1}"
        return problems

    def at(self, time: Time, state: State) -> Any:
        """The factor of the interval that the time is in; a milestone begins the next one."""
        return between(time, self.milestones, self.factors)
