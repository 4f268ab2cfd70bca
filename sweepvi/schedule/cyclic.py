"""Cyclical step sizes.

Smith, "Cyclical Learning Rates for Training Neural Networks", 2017. Semantics of ``torch.optim.lr_scheduler.CyclicLR``
with ``base_lr = low_factor * lr`` and ``max_lr = high_factor * lr``; momentum is left alone (torch's
``cycle_momentum=False``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import where
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Step size up and down between two bounds, over and over; momentum stays as it is."""

    low_factor: Annotated[float, Key("factor on the step size at the bottom", ge=0)] = 0.1
    high_factor: Annotated[float, Key("factor on the step size at the top", gt=0)] = 1.0
    up: Annotated[int, Key("steps from bottom to top", ge=1)] = 250
    down: Annotated[int | None, Key("steps from top to bottom; null: as many as up", ge=1)] = None
    mode: Annotated[
        Literal["triangular", "triangular2", "exp_range"],
        Key("height of the cycles: the same, halved each cycle, or times gamma each step"),
    ] = "triangular"
    gamma: Annotated[float, Key("factor on the height, once a step, for mode=exp_range", gt=0, le=1)] = 1.0

    def conflicts(self) -> dict[str, str]:
        """The top is above the bottom, and only one mode has a gamma."""
        problems = super().conflicts()
        if self.high_factor <= self.low_factor:
            problems["high_factor"] = f"must be above low_factor, {self.low_factor}"
        if self.gamma != 1.0 and self.mode != "exp_range":
            problems["gamma"] = "goes with mode=exp_range; otherwise 1.0"
        return problems

    def at(self, time: Time, state: State) -> Any:
        """``low_factor`` at the start of every cycle, ``high_factor`` ``up`` steps later, before its height shrinks."""
        down = self.up if self.down is None else self.down
        place = time % (self.up + down)
        height = where(place <= self.up, place / self.up, (self.up + down - place) / down)
        return self.low_factor + (self.high_factor - self.low_factor) * height * self._scale(time, self.up + down)

    def _scale(self, time: Time, cycle: int) -> Any:
        if self.mode == "triangular2":
            return 0.5 ** (time // cycle)
        return self.gamma**time
