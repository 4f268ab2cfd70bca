"""What a schedule is: the factor on the step size, as a function of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sweepvi.keys import Keyed


@dataclass(frozen=True)
class Schedule(Keyed, ABC):
    """A learning-rate schedule; it keeps no state, so a resumed fit needs only the step."""

    @abstractmethod
    def factor(self, step: int | Tensor) -> Any:
        """The factor on every group's ``lr`` at the update after ``step`` updates (``step`` from 0).

        Works on a Python integer, and elementwise on a floating-point tensor of steps, one a lane.
        """
