"""Limited-memory BFGS for a deterministic objective.

Directions by the two-loop recursion, Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4. Along them, a
step that satisfies the weak Wolfe conditions, by the bracketing of Lewis & Overton, "Nonsmooth Optimization via
Quasi-Newton Methods", 2013, algorithm 2.6: so that what is remembered has positive curvature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sweepvi.geometry.lbfgs import Memory
from sweepvi.keys import Key
from sweepvi.optim.minimizer import Minimizer, Objective, Search

DECREASE, CURVATURE = 1e-4, 0.9
"""The constants of the Wolfe conditions, as Nocedal & Wright have them for quasi-Newton methods."""

TRIALS = 40
"""Points along a direction, at most."""


@dataclass(frozen=True)
class LBFGS(Minimizer):
    """L-BFGS, on frozen noise alone (engine.noise=fixed): few evaluations, no step size."""

    history: Annotated[int, Key("steps that are remembered", ge=1)] = 10

    def search(self, objective: Objective, start: Tensor) -> Search:
        """See :meth:`Minimizer.search`."""
        return _Search(objective, start, self.gradient_tolerance, self.history)


class _Search(Search):
    def __init__(self, objective: Objective, start: Tensor, gradient_tolerance: float, history: int) -> None:
        super().__init__(objective, start, gradient_tolerance)
        self._memory = Memory(history, start[None])

    def step(self) -> bool:
        """See :meth:`Search.step`."""
        fresh = bool(self._memory.empty())
        direction = -self._memory.times(self.gradient[None])[0]
        slope = float(direction @ self.gradient)
        # Without a memory of scale, a first step is no longer than 1.
        first = min(1.0, 1.0 / max(float(direction.norm()), 1e-300)) if fresh else 1.0
        if slope < 0.0 and self._line(direction, slope, first):
            return True
        if fresh:
            return self._give_up(-slope * first)
        # What is remembered may be why a line leads nowhere.
        self._memory.forget(self._memory.empty().logical_not())
        return self.step()

    def _line(self, direction: Tensor, slope: float, share: float) -> bool:
        """Move along a direction, by a step that satisfies both conditions or at least the first."""
        low, high, found = 0.0, math.inf, None
        for _ in range(TRIALS):
            point = self.point + share * direction
            value, gradient = self.objective(point)
            fine = math.isfinite(value) and bool(gradient.isfinite().all())
            if not fine or value > self.value + DECREASE * share * slope + self._slack:
                high = share
            else:
                found = share, point, value, gradient
                if float(gradient @ direction) >= CURVATURE * slope:
                    break
                low = share
            share = 2.0 * share if math.isinf(high) else 0.5 * (low + high)
        return found is not None and self._taken(slope, *found)

    def _taken(self, slope: float, share: float, point: Tensor, value: float, gradient: Tensor) -> bool:
        """Move to a point, unless it is better by rounding alone."""
        if value > self.value - self._slack and float(gradient.norm()) >= float(self.gradient.norm()):
            return False
        steps, changes = (point - self.point)[None], (gradient - self.gradient)[None]
        self._memory.add(steps, changes, torch.ones(1, dtype=torch.bool, device=point.device))
        self.rate = share
        self.promised = max(self.value - value, -0.5 * share * slope)
        self._move(point, value, gradient)
        return True
