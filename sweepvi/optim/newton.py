"""Newton's method in a trust region, for a deterministic objective.

Nocedal & Wright, "Numerical Optimization", 2006: the region by algorithm 4.1, the step in it by conjugate gradients
that stop at its edge or at negative curvature (Steihaug), algorithm 7.2. Only products of the Hessian with vectors are
needed. DADVI's own choice of optimizer (Giordano, Ingram & Broderick, 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.minimizer import Minimizer, Objective, Search

ACCEPTED, POOR, GOOD = 1e-4, 0.25, 0.75
"""Shares of the promised decrease above which a step is taken, below which the region shrinks, above which it grows."""

SHORTEST = 1e-12
"""Of the size of a point, the radius below which there is no step."""


@dataclass(frozen=True)
class TrustRegionNewton(Minimizer):
    """Newton's method in a trust region, on frozen noise alone (engine.noise=fixed): no step size."""

    radius: Annotated[float, Key("of the region at the start, in units of unconstrained parameters", gt=0)] = 1.0
    max_radius: Annotated[float, Key("of the region, ever", gt=0)] = 1000.0

    def search(self, objective: Objective, start: Tensor) -> Search:
        """See :meth:`Minimizer.search`."""
        return _Search(objective, start, self.gradient_tolerance, self.radius, self.max_radius)


class _Search(Search):
    def __init__(
        self, objective: Objective, start: Tensor, gradient_tolerance: float, radius: float, largest: float
    ) -> None:
        super().__init__(objective, start, gradient_tolerance)
        self.rate, self._largest = min(radius, largest), largest

    def step(self) -> bool:
        """See :meth:`Search.step`."""
        while True:
            step, product = self._within(self.rate)
            promised = -float(step @ self.gradient + 0.5 * (step @ product))
            if not promised > 0.0 or self.rate < SHORTEST * (1.0 + float(self.point.norm())):
                return self._give_up(max(promised, 0.0))
            point = self.point + step
            value, gradient = self.objective(point)
            kept = self._kept(promised, value, gradient)
            self._resize(kept, float(step.norm()))
            if kept > ACCEPTED:
                self.promised = promised
                self._move(point, value, gradient)
                return True
            if promised <= self._slack:
                return self._give_up(promised)

    def _kept(self, promised: float, value: float, gradient: Tensor) -> float:
        """The share of a promised decrease that has come true; -inf where the objective is not finite."""
        if not math.isfinite(value) or not bool(gradient.isfinite().all()):
            return -math.inf
        if max(promised, abs(self.value - value)) <= self._slack:
            # Values are equal but for rounding: gradients, which are more precise, decide.
            return 1.0 if float(gradient.norm()) < float(self.gradient.norm()) else -math.inf
        return (self.value - value) / promised

    def _resize(self, kept: float, length: float) -> None:
        if kept < POOR:
            self.rate = 0.25 * length
        elif kept > GOOD and length > 0.99 * self.rate:
            self.rate = min(2.0 * self.rate, self._largest)

    def _within(self, radius: float) -> tuple[Tensor, Tensor]:
        """A step no longer than the radius that lowers the quadratic model, and the Hessian times it: [D] each."""
        size = float(self.gradient.norm())
        wanted = min(0.5, math.sqrt(size)) * size
        step, product = torch.zeros_like(self.gradient), torch.zeros_like(self.gradient)
        residual, direction = self.gradient, -self.gradient
        for _ in range(2 * len(step)):
            along = self.objective.hessian_times(self.point, direction)
            curvature, left = float(direction @ along), float(residual @ residual)
            if not math.isfinite(curvature):
                break
            share = left / curvature if curvature > 0.0 else math.inf
            if curvature <= 0.0 or float((step + share * direction).norm()) >= radius:
                share = _to_edge(step, direction, radius)
                return step + share * direction, product + share * along
            step, product = step + share * direction, product + share * along
            residual = residual + share * along
            if float(residual.norm()) <= wanted:
                break
            direction = -residual + float(residual @ residual) / left * direction
        return step, product


def _to_edge(step: Tensor, direction: Tensor, radius: float) -> float:
    """How far to go along a direction from a step within a ball to its edge."""
    a, b = float(direction @ direction), float(step @ direction)
    c = max(radius**2 - float(step @ step), 0.0)
    return (math.sqrt(b * b + a * c) - b) / a
