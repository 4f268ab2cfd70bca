"""What a geometry component is: it finds coordinates in which a posterior is easy to approximate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.keys import Keyed


@dataclass(frozen=True)
class Mode:
    """A local maximum of the log joint density, in unconstrained coordinates."""

    point: Tensor
    """Shape [D]."""
    log_joint: float
    log_evidence: float
    """Laplace's estimate: log of the integral of the normal that has the density and curvature of this point."""
    found: int
    """Searches that ended here."""
    factor: Tensor
    """Of the covariance of the normal that fits it there: lower triangular, shape [D, D]."""


@dataclass(frozen=True)
class Located:
    """What a geometry has found."""

    affine: AffineMap
    """From the guide's coordinates to the model's, float64."""
    modes: tuple[Mode, ...] = ()
    """Highest evidence first; empty if none were looked for."""
    notes: tuple[str, ...] = field(default=())
    """What a reader must know: that there is no mode, or that its curvature is singular."""


@dataclass(frozen=True)
class Geometry(Keyed, ABC):
    """A geometry; found once before a fit, and the same for all that differ in numbers only."""

    @abstractmethod
    def locate(self, log_joint: LogJoint) -> Located:
        """Coordinates for a log joint density.

        Raises ``NoGeometryError`` if there are none.
        """
