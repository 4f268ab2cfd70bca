"""Laplace's approximation as coordinates: the mode is the origin, and the posterior's covariance there the unit.

Laplace, "Mémoire sur la probabilité des causes par les évènements", 1774; Tierney & Kadane, "Accurate Approximations
for Posterior Moments and Marginal Densities", 1986.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.coordinates import NoGeometryError
from sweepvi.geometry.curvature import Curvature
from sweepvi.geometry.geometry import Geometry, Located
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.search import peaks, searches
from sweepvi.keys import Key


@dataclass(frozen=True)
class Laplace(Geometry):
    """Mode and Hessian: the highest of several searches, its curvature made positive."""

    starts: Annotated[int, Key("searches for a mode, from different points", ge=1, le=1024)] = 16
    seed: Annotated[int, Key("fixes where searches start, for all restarts", ge=0, lt=2**32)] = 0

    def locate(self, log_joint: LogJoint) -> Located:
        """See :meth:`Geometry.locate`."""
        found = peaks(log_joint, searches(log_joint, self.starts, self.seed))
        if not found:
            raise NoGeometryError("the Hessian is not finite where searches for a mode end")
        best = found[0]
        notes = [] if best.arrived else [_doubt(best.curvature)]
        return Located(affine_of(best.mode.point, best.curvature), tuple(peak.mode for peak in found), tuple(notes))


def _doubt(curvature: Curvature) -> str:
    if curvature.raised:
        return f"geometry: no mode was found; curvature was made positive in {curvature.raised} directions"
    return "geometry: the search for a mode ended where the gradient is not zero"


def affine_of(point: Tensor, curvature: Curvature) -> AffineMap:
    """The map that takes a standard normal to the normal at a point."""
    scale = curvature.factor.norm(dim=-1)
    return AffineMap(point.clone(), scale, curvature.factor / scale[:, None])
