"""Fits that end by themselves: see :mod:`sweepvi.stopping.watch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sweepvi.keys import Key
from sweepvi.stopping.stop import Stop
from sweepvi.stopping.watch import BATCHES, Watch


@dataclass(frozen=True)
class Auto(Stop):
    """When a smaller step size gains no more: averages iterates, halves the step size, compares averages."""

    tolerance: Annotated[float, Key("nats that may be left to gain", gt=0)] = 0.01
    factor: Annotated[float, Key("on the step size, each time that it is reduced", gt=0, lt=1)] = 0.5
    window: Annotated[int, Key("steps at each step size, at least", ge=BATCHES)] = 512
    draws: Annotated[int, Key("evaluations of the loss by which two averages are compared, at most", ge=32)] = 512

    def watch(self, size: int) -> Watch:
        """See :meth:`Stop.watch`."""
        return Watch(self.tolerance, self.factor, self.window, self.draws, size)
