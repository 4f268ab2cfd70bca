"""How far a fit's draws are from the reference: bias of means, ratios of standard deviations, and the joint pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from reference import Reference

BIAS = 0.1
"""A mean passes if it is off by less than this many reference standard deviations."""

RATIO = (0.8, 1.25)
"""A standard deviation passes if its ratio to the reference's is in here."""


@dataclass(frozen=True)
class Measures:
    """Of all scalars of a posterior."""

    bias: float
    """The largest |mean − reference mean| in reference standard deviations."""
    worst: str
    """The scalar with that bias."""
    low: float
    """The smallest ratio of a standard deviation to the reference's."""
    high: float
    """The largest."""

    @property
    def passes(self) -> bool:
        """The joint pass: every scalar's mean and standard deviation."""
        return self.bias < BIAS and RATIO[0] <= self.low and self.high <= RATIO[1]


def moments(draws: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of draws, by scalar."""
    return {name: (float(values.mean()), float(values.std(ddof=1))) for name, values in draws.items()}


def measures(found: Mapping[str, tuple[float, float]], reference: Reference) -> Measures:
    """Compare means and standard deviations with the reference's scalars; what is not finite is infinitely off."""
    bias = {name: abs(found[name][0] - mean) / reference.sd[name] for name, mean in reference.mean.items()}
    ratio = [found[name][1] / sd for name, sd in reference.sd.items()]
    bias = {name: float(value) if math.isfinite(value) else math.inf for name, value in bias.items()}
    worst = max(bias, key=lambda name: bias[name])
    if not all(map(math.isfinite, ratio)):
        return Measures(bias[worst], worst, 0.0, math.inf)
    return Measures(bias[worst], worst, min(ratio), max(ratio))
