"""Geometries: coordinates in which a posterior is easy to approximate, one algorithm a file."""

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.coordinates import Coordinates, NoGeometryError, Placing
from sweepvi.geometry.geometry import Geometry, Located, Mode
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.none import NoGeometry
from sweepvi.geometry.place import Place
from sweepvi.geometry.whitened import whitened

__all__ = [
    "AffineMap",
    "Coordinates",
    "Geometry",
    "Located",
    "LogJoint",
    "Mode",
    "NoGeometry",
    "NoGeometryError",
    "Place",
    "Placing",
    "whitened",
]
