"""What a schedule is: the factor on the step size, as a function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from torch import Tensor

from sweepvi.keys import Key, Keyed

Time: TypeAlias = int | Tensor
"""Steps, or epochs, taken so far: a whole number, or a float64 tensor of whole numbers, one a lane."""

State: TypeAlias = Mapping[str, Tensor]
"""What a schedule remembers of the losses: name → float64 tensor, of the losses' shape. Most remember nothing."""


@dataclass(frozen=True)
class Schedule(Keyed, ABC):
    """A learning-rate schedule: a factor on the step size that the optimizer is configured with.

    Subclasses write :meth:`at`. Those that follow the loss also write :meth:`init` and :meth:`observe`; their state is
    all that a continuation needs beside the step.
    """

    interval: Annotated[Literal["step", "epoch"], Key("what the schedule counts: updates, or epochs of them")] = field(
        default="step", kw_only=True
    )
    steps_per_epoch: Annotated[int | None, Key("updates in an epoch, for interval=epoch", ge=1)] = field(
        default=None, kw_only=True
    )

    def conflicts(self) -> dict[str, str]:
        """Epochs need a length, and only epochs have one."""
        if (self.interval == "epoch") != (self.steps_per_epoch is not None):
            return {"steps_per_epoch": "goes with interval=epoch: there a whole number >= 1, otherwise null"}
        return {}

    def factor(self, step: Time, state: State | None = None) -> Any:
        """The factor on ``lr`` at the update after ``step`` updates (``step`` from 0).

        Works on a Python integer, and elementwise on a floating-point tensor of steps, one a lane. ``state`` is that
        before the update; None stands for the initial one.
        """
        return self.at(self.time(step), self.init() if state is None else state)

    def time(self, step: Time) -> Time:
        """Steps in the schedule's own unit."""
        return step if self.steps_per_epoch is None else step // self.steps_per_epoch

    def units(self, steps: int) -> int:
        """``steps`` updates in the schedule's own unit; an epoch that has begun counts."""
        return steps if self.steps_per_epoch is None else -(-steps // self.steps_per_epoch)

    @abstractmethod
    def at(self, time: Time, state: State) -> Any:
        """The factor after ``time`` steps or epochs, whichever the schedule counts."""

    def init(self) -> dict[str, Tensor]:
        """The state before the first update."""
        return {}

    def observe(self, state: State, step: Time, loss: Tensor) -> dict[str, Tensor]:
        """The state after the update that follows ``step`` updates, whose loss was ``loss`` (float64, one a lane)."""
        del step, loss
        return dict(state)

    def over(self, steps: int) -> Schedule:
        """The schedule for a fit of ``steps`` updates: lengths left open become the fit's; an equal one if none are."""
        del steps
        return self
