"""Schedules with a length, by default the fit's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule


@dataclass(frozen=True)
class Finite(Schedule):
    """A schedule that has an end."""

    steps: Annotated[int | None, Key("length of the schedule; null: the whole fit", ge=1)] = None

    def length(self) -> int:
        """The length; ``ValueError`` while it is open."""
        if self.steps is None:
            raise ValueError(
                f"{type(self).__name__}.steps is open: take over(steps) of the schedule, for a fit's steps"
            )
        return self.steps

    def over(self, steps: int) -> Schedule:
        """See :meth:`Schedule.over`."""
        return self if self.steps is not None else replace(self, steps=max(1, self.units(steps)))
