"""Linear response: the covariance that independent normals leave out, from how their means answer to the model.

At a minimum of the objective f, a small change of the log joint by t·θ moves the guide's means by t times the block of
the inverse Hessian of f that belongs to them; for an exact posterior, that is the covariance of θ. So

    Cov(θ) ≈ (∂²f/∂x∂xᵀ)⁻¹ [means, means],

which is exact for a normal posterior, of which independent normals have the means right and the variances too small:
Giordano, Broderick & Jordan, "Covariances, Robustness, and Variational Bayes", JMLR 2018; on frozen draws, Giordano,
Ingram & Broderick, "Black Box Variational Inference with a Deterministic Objective", JMLR 2024. The latter have the
error of the minimum by M draws, too: its covariance is H⁻¹ S H⁻¹ / M, S that of the gradients of single draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sweepvi.engine.frozen.objective import FrozenObjective
from sweepvi.engine.lanes.captured import Captured

MOST = 4096
"""Parameters of which a Hessian is made, at most."""


_LOCS, _LOC = "AutoNormal.locs.", "AutoDiagonalNormal.loc"
"""What Pyro calls the means of the two guides."""


@dataclass(frozen=True)
class Normals:
    """The independent normals of a guide: n of them, in the order in which the guide draws them."""

    means: Tensor
    """Places of their means among the parameters: int64, shape [n]."""
    scales: tuple[str, ...]
    """Names of the parameters that are their standard deviations, in order."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each of these."""

    @staticmethod
    def of(captured: Captured) -> Normals:
        """Those of an ``AutoNormal`` or ``AutoDiagonalNormal``."""
        places, first = {}, 0
        for name, shape in captured.shapes.items():
            places[name] = torch.arange(first, first + shape.numel())
            first += shape.numel()
        means = [name for name in places if name.startswith(_LOCS) or name == _LOC]
        scales = tuple(name.replace("loc", "scale", 1) for name in means)
        shapes = tuple(tuple(captured.shapes[name]) for name in means)
        return Normals(torch.cat([places[name] for name in means]), scales, shapes)


@dataclass(frozen=True)
class LinearResponse:
    """What a minimum says of the normals' covariance."""

    factor: Tensor
    """Lower triangular; with its transpose, the covariance of the unconstrained variables: float64, [n, n]."""
    errors: Tensor
    """Standard errors of their means, by the frozen draws: float64, [n]."""

    @property
    def sds(self) -> Tensor:
        """Standard deviations of the unconstrained variables: [n]."""
        return self.factor.norm(dim=1)

    @property
    def largest_error(self) -> float:
        """The largest error of a mean, in its standard deviations."""
        return float((self.errors / self.sds).max())

    def noise(self, given: Tensor, normals: Normals, params: Mapping[str, Tensor]) -> Tensor:
        """Noise on which the guide, a mean plus a scale times noise, draws from the normal of this covariance.

        Args:
            given: standard normal, shape [draws, numbers]; the guide's are the first n.
            normals: of the guide.
            params: constrained, by name.

        """
        scale = torch.cat([params[name].flatten() for name in normals.scales]).to(self.factor)
        size = len(scale)
        drawn = given[:, :size].to(self.factor) @ self.factor.mT / scale
        return torch.cat([drawn.to(given), given[:, size:]], 1)


def linear_response(objective: FrozenObjective, point: Tensor, normals: Normals) -> LinearResponse | None:
    """That of a minimum, at a point of shape [D]; None where the Hessian is not positive definite."""
    lower, failed = torch.linalg.cholesky_ex(objective.hessian(point))
    if int(failed) or not bool(lower.isfinite().all()):
        return None
    inverse = torch.cholesky_inverse(lower)
    means = normals.means.to(point.device)
    factor, failed = torch.linalg.cholesky_ex(inverse[means][:, means])
    if int(failed):
        return None
    # S of rows of the inverse: the sandwich of a mean is their product with S from both sides.
    rows = inverse[means]
    errors = ((rows @ objective.scatter(point)) * rows).sum(1).clamp(min=0.0).sqrt() / objective.draws**0.5
    return LinearResponse(factor, errors)
