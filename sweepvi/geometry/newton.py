"""Newton's method with a line search, to finish what a search by gradients has begun.

Nocedal & Wright, "Numerical Optimization", 2006, section 3.4. It does not mind how badly coordinates are scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sweepvi.geometry.curvature import Curvature, curvature_of
from sweepvi.geometry.log_joint import LogJoint

STEPS = 30
LENGTHS = tuple(0.5**power for power in range(12))
"""Parts of a Newton step that are tried, all at once."""
ARRIVED = 1e-6
"""Nats that the log density would gain by a Newton step, below which the point is a mode."""

NEAR = 1e-2
"""Standard deviations from a mode within which a search that gains no more has arrived at it."""


def finish(log_joint: LogJoint, point: Tensor) -> tuple[Tensor, Curvature | None, bool]:
    """The maximum near a point of shape [D], the normal there (None if there is none), and whether it is a maximum."""
    value, gradient = (found[0] for found in log_joint(point[None]))
    curvature = None
    for _ in range(STEPS):
        curvature = curvature_of(log_joint.hessian(point))
        if curvature is None or not bool(gradient.isfinite().all()):
            return point, None, False
        whitened = gradient @ curvature.factor
        if 0.5 * float(whitened @ whitened) < ARRIVED:
            return point, curvature, curvature.raised == 0
        step = curvature.factor @ whitened
        trials = point + torch.tensor(LENGTHS, dtype=point.dtype)[:, None] * step
        values, gradients = log_joint(trials)
        values = torch.where(values.isfinite() & gradients.isfinite().all(-1), values, -torch.inf)
        best = int(values.argmax())
        if not bool(values[best] > value):
            break
        point, value, gradient = trials[best], values[best], gradients[best]
    arrived = curvature is not None and curvature.raised == 0 and float((gradient @ curvature.factor).norm()) < NEAR
    return point, curvature, arrived
