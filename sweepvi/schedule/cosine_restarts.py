"""Cosine annealing with warm restarts.

Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5. Semantics of
``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`` with ``eta_min = final_factor * lr``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import floor_log, half_cosine, where
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class CosineRestarts(Schedule):
    """Half a cosine wave down, then up in one step and down again, over and over."""

    first: Annotated[int, Key("steps to the first restart", ge=1)] = 500
    growth: Annotated[int, Key("factor on the length of each wave to the next", ge=1)] = 1
    final_factor: Annotated[float, Key("factor on the step size that each wave falls to", ge=0, le=1)] = 0.0

    def at(self, time: Time, state: State) -> Any:
        """From 1 at each restart towards ``final_factor`` at the next."""
        return self.final_factor + (1.0 - self.final_factor) * half_cosine(self._share(time))

    def _share(self, time: Time) -> Any:
        """The share of its wave that a time has behind it."""
        if self.growth == 1:
            return (time % self.first) / self.first
        wave = floor_log(time / self.first * (self.growth - 1) + 1, self.growth)
        # At a restart, rounding may leave the logarithm one short; the restarts are whole numbers, and exact.
        wave = where(time >= self._restart(wave + 1), wave + 1, wave)
        return (time - self._restart(wave)) / (self.first * self.growth**wave)

    def _restart(self, wave: Any) -> Any:
        """The time at which a wave begins."""
        return self.first * ((self.growth**wave - 1) // (self.growth - 1))
