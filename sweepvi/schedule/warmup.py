"""Warm-up: a rise to the configured step size.

Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 2.2. With ``shape=linear``
the semantics of ``torch.optim.lr_scheduler.LinearLR`` up to a factor of 1; torch has no class for the other shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sweepvi.keys import Key
from sweepvi.schedule.elementwise import half_cosine, minimum
from sweepvi.schedule.schedule import Schedule, State, Time


@dataclass(frozen=True)
class Warmup(Schedule):
    """Small steps at first, rising to the optimizer's own step size."""

    steps: Annotated[int, Key("length of the rise", ge=1)] = 100
    initial_factor: Annotated[float, Key("factor on the step size at the start", gt=0, le=1)] = 0.01
    shape: Annotated[Literal["linear", "exponential", "cosine"], Key("shape of the rise")] = "linear"

    def at(self, time: Time, state: State) -> Any:
        """From ``initial_factor`` at 0 to 1 at ``steps``, and 1 from there on."""
        share = minimum(time, self.steps) / self.steps
        if self.shape == "exponential":
            return self.initial_factor ** (1.0 - share)
        risen = share if self.shape == "linear" else 1.0 - half_cosine(share)
        return self.initial_factor + (1.0 - self.initial_factor) * risen
