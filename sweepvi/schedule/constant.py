"""The step size as configured, at every step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sweepvi.schedule.schedule import Schedule


@dataclass(frozen=True)
class Constant(Schedule):
    """No schedule: the optimizer's own step size throughout."""

    def factor(self, step: int | Tensor) -> float:
        """One."""
        del step
        return 1.0
