"""A scale for each coordinate, from the curvature where guides start: one over the root of the Hessian's diagonal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.coordinates import NoGeometryError
from sweepvi.geometry.geometry import Geometry, Located
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.low_rank import scales_of
from sweepvi.keys import Key

TRIED = 16
"""Points that are tried until the log joint density is finite."""


@dataclass(frozen=True)
class Standardize(Geometry):
    """A unit for each coordinate, from curvature at the start: no search, for any number of variables."""

    seed: Annotated[int, Key("fixes the start and the probes of curvature, for all restarts", ge=0, lt=2**32)] = 0

    def locate(self, log_joint: LogJoint) -> Located:
        """See :meth:`Geometry.locate`."""
        points = log_joint.starts(TRIED, self.seed)
        values, gradients = log_joint(points)
        fine = (values.isfinite() & gradients.isfinite().all(-1)).nonzero().flatten().tolist()
        if not fine:
            raise NoGeometryError("the log joint density, or its gradient, is not finite at any starting point")
        point = points[fine[0]]
        scale, flat = scales_of(log_joint, point, self.seed)
        note = f"geometry: no curvature at the start along {flat} of {log_joint.size} coordinates; their scale is 1"
        return Located(AffineMap(point.clone(), scale), (), (note,) if flat else ())
