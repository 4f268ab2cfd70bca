"""The modes of a log joint density, by searches from several points."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sweepvi.geometry import newton
from sweepvi.geometry.coordinates import NoGeometryError
from sweepvi.geometry.curvature import Curvature
from sweepvi.geometry.geometry import Mode
from sweepvi.geometry.lbfgs import Path, ascend
from sweepvi.geometry.log_joint import LogJoint

FINISHED = 6
"""Ends of searches, the highest different ones, that are finished by Newton's method."""
APART = 20.0
"""Nats below the highest end at which another is not worth finishing, per root of D."""
SAME = 0.1
"""Distance, in standard deviations of the normal at a mode, within which an end is that mode."""


@dataclass(frozen=True)
class Peak:
    """A mode with the normal that fits it."""

    mode: Mode
    curvature: Curvature
    arrived: bool
    """Whether the gradient vanishes there and the curvature is positive in all directions."""


def searches(log_joint: LogJoint, count: int, seed: int, most: int = 1000) -> list[Path]:
    """Searches from ``count`` points, highest end first; ``NoGeometryError`` if the density is finite at none.

    They call it ``most`` times.
    """
    paths = [path for path in ascend(log_joint, log_joint.starts(count, seed), most) if len(path.points) > 1]
    if not paths:
        raise NoGeometryError("the log joint density, or its gradient, is not finite at any starting point")
    return sorted(paths, key=lambda path: float(path.values[-1]), reverse=True)


def peaks(log_joint: LogJoint, paths: list[Path]) -> list[Peak]:
    """The different maxima that searches end at, highest Laplace evidence first; empty if there is no curvature."""
    found: list[Peak] = []
    ends: list[int] = []
    best = float(paths[0].values[-1])
    for path in paths:
        end, value = path.points[-1], float(path.values[-1])
        near = next((place for place, peak in enumerate(found) if _distance(end, peak) < SAME), None)
        if near is not None:
            ends[near] += 1
        elif len(found) < FINISHED and value > best - APART * math.sqrt(log_joint.size):
            point, curvature, arrived = newton.finish(log_joint, end)
            if curvature is None:
                continue
            peak = _peak(log_joint, point, curvature, arrived)
            near = next((place for place, other in enumerate(found) if _distance(point, other) < SAME), None)
            if near is None:
                found.append(peak)
                ends.append(1)
            else:
                ends[near] += 1
    counted = [replace(peak, mode=replace(peak.mode, found=count)) for peak, count in zip(found, ends, strict=True)]
    return sorted(counted, key=lambda peak: (peak.arrived, peak.mode.log_evidence), reverse=True)


def _peak(log_joint: LogJoint, point: Tensor, curvature: Curvature, arrived: bool) -> Peak:
    value = float(log_joint(point[None])[0][0])
    evidence = value + 0.5 * log_joint.size * math.log(2.0 * math.pi) + float(curvature.log_volume)
    return Peak(Mode(point, value, evidence, 1, curvature.factor), curvature, arrived)


def _distance(point: Tensor, peak: Peak) -> float:
    apart = (point - peak.mode.point)[:, None]
    away = torch.linalg.solve_triangular(peak.curvature.factor, apart, upper=False)
    return float(away.norm()) / math.sqrt(len(point))
