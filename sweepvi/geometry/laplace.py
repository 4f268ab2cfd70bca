"""Laplace's approximation as coordinates: the mode is the origin, and the posterior's covariance there the unit.

Laplace, "Mémoire sur la probabilité des causes par les évènements", 1774; Tierney & Kadane, "Accurate Approximations
for Posterior Moments and Marginal Densities", 1986.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.best_normal import Noise, best_along, elbos
from sweepvi.geometry.coordinates import NoGeometryError
from sweepvi.geometry.curvature import FLAT, Curvature
from sweepvi.geometry.geometry import Geometry, Located
from sweepvi.geometry.lbfgs import Path
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.low_rank import climb, leading, scales_of
from sweepvi.geometry.search import peaks, searches
from sweepvi.keys import Key

DRAWS = 25
"""By which normals are compared where there is no mode."""


@dataclass(frozen=True)
class Laplace(Geometry):
    """Mode and Hessian: the highest of several searches, its curvature made positive."""

    starts: Annotated[int, Key("searches for a mode, from different points", ge=1, le=1024)] = 16
    full: Annotated[
        int, Key("coordinates up to which all of the Hessian is used; above, its diagonal and leading directions", ge=1)
    ] = 1000
    seed: Annotated[int, Key("fixes where searches start, for all restarts", ge=0, lt=2**32)] = 0

    def locate(self, log_joint: LogJoint) -> Located:
        """See :meth:`Geometry.locate`."""
        paths = searches(log_joint, self.starts, self.seed)
        if log_joint.size > self.full:
            return _of_many(log_joint, paths[0], self.seed)
        found = peaks(log_joint, paths)
        if not found:
            raise NoGeometryError("the Hessian is not finite where searches for a mode end")
        best = found[0]
        affine = affine_of(best.mode.point, best.curvature)
        if best.arrived:
            return Located(affine, tuple(peak.mode for peak in found if peak.arrived))
        return _without_mode(log_joint, affine, paths, self.seed)


def _without_mode(log_joint: LogJoint, affine: AffineMap, paths: list[Path], seed: int) -> Located:
    """Of the normal at the highest end, its curvature made positive, and the best along each search, that of best ELBO.

    Where the density has no maximum, its end may be where no draw has a finite density.
    """
    noise = Noise(log_joint.size, seed, affine.loc.device)(DRAWS)
    along = [normal for normal in (best_along(log_joint, path, noise) for path in paths) if normal is not None]
    values = elbos(log_joint, [affine, *along], noise)
    if not bool(values.isfinite().any()):
        raise NoGeometryError("no normal at the searches' ends, or on their way, has draws of finite density")
    note = "geometry: no mode was found; coordinates are those of the best normal along the searches"
    return Located([affine, *along][int(values.argmax())], (), (note,))


def _of_many(log_joint: LogJoint, path: Path, seed: int) -> Located:
    """The normal at a search's end, of diagonal and low rank. Its evidence is too rough to compare modes by."""
    path = climb(log_joint, path, seed)
    point = path.points[-1]
    scale, flat = scales_of(log_joint, point, seed)
    directions, curvature = leading(log_joint, point, scale, seed)
    least = FLAT * curvature.abs().max()
    raised = flat + int((curvature < least).sum())
    stretch = curvature.abs().clamp(min=float(least)).rsqrt()
    if not bool(stretch.isfinite().all()):
        raise NoGeometryError("the Hessian is not finite where searches for a mode end")
    notes = []
    if raised:
        notes.append(f"geometry: no mode was found; curvature was made positive in {raised} directions or more")
    elif not path.converged:
        notes.append("geometry: the search for a mode ended where the gradient is not zero")
    return Located(AffineMap(point.clone(), scale, None, directions, stretch), (), tuple(notes))


def affine_of(point: Tensor, curvature: Curvature) -> AffineMap:
    """The map that takes a standard normal to the normal at a point."""
    scale = curvature.factor.norm(dim=-1)
    return AffineMap(point.clone(), scale, curvature.factor / scale[:, None])
