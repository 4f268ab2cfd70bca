"""Exponential decay: semantics of ``torch.optim.lr_scheduler.ExponentialLR``, stepped once an update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule


@dataclass(frozen=True)
class Exponential(Schedule):
    """Step size times `gamma` to the power of the step."""

    gamma: Annotated[float, Key("factor on the step size, once a step", gt=0, le=1)] = 0.999

    def factor(self, step: int | Tensor) -> Any:
        """``gamma ** step``."""
        return self.gamma**step
