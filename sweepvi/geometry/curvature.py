"""A normal approximation at a point, from the Hessian of the log density there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLAT = 1e-12
"""Curvature along an eigenvector, relative to the largest in scaled coordinates, below which it is flat or wrong."""


@dataclass(frozen=True)
class Curvature:
    """The precision of a normal, positive definite, as ``factor`` of the covariance, and what it took to get there."""

    factor: Tensor
    """Lower triangular, shape [D, D]: the covariance is ``factor @ factor.T``."""
    raised: int
    """Directions in which the log density is flat or convex, and curvature was put in its place."""

    @property
    def log_volume(self) -> Tensor:
        """Log determinant of the factor: shape []."""
        return self.factor.diagonal().log().sum()


def curvature_of(hessian: Tensor) -> Curvature | None:
    """The normal of a log density's Hessian, shape [D, D]; None if that is not finite.

    In coordinates scaled to unit diagonal, negative eigenvalues count by their size, as in Betancourt, "A General
    Metric for Riemannian Manifold Hamiltonian Monte Carlo", 2013; those that are next to nothing get the least that
    is let through.
    """
    if not bool(hessian.isfinite().all()):
        return None
    precision = -0.5 * (hessian + hessian.mT)
    diagonal = precision.diagonal().abs()
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, None] * precision * scale)
    least = FLAT * values.abs().max().clamp(min=1e-300)
    raised = int((values < least).sum())
    root = values.abs().clamp(min=least).rsqrt()
    # The covariance's square root, made triangular: QR keeps digits that a product and its Cholesky factor would lose.
    _, upper = torch.linalg.qr((scale[:, None] * vectors * root).mT)
    return Curvature(upper.mT * upper.diagonal().sign(), raised)
