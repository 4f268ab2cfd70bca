"""Cosine annealing.

Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, equation 5, without restarts.
Semantics of ``torch.optim.lr_scheduler.CosineAnnealingLR`` with ``eta_min = final_factor * lr``: past its length the
factor goes up the cosine again, and down, and so on. Torch multiplies its way there, this is the closed form: they
differ by rounding alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import half_cosine
from sweepvi.schedule.finite import Finite
from sweepvi.schedule.schedule import State, Time


@dataclass(frozen=True)
class Cosine(Finite):
    """Step size down half a cosine wave, by default to nothing at the end of the fit."""

    final_factor: Annotated[float, Key("factor on the step size at the end", ge=0, le=1)] = 0.0

    def at(self, time: Time, state: State) -> Any:
        """From 1 at 0 to ``final_factor`` at ``steps``."""
        return self.final_factor + (1.0 - self.final_factor) * half_cosine(time / self.length())
