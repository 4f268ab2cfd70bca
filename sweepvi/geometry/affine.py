"""An affine map from the guide's coordinates z to the model's, x = loc + scale ∘ (A z)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AffineMap(nn.Module):
    """Takes z to x; its tensors are buffers, so that a fit saves them and its lanes share them.

    Args:
        loc: shape [D].
        scale: shape [D], positive.
        factor: lower triangular, shape [D, D], with a positive diagonal; None is the identity.
        directions: orthonormal columns, shape [D, R], with ``stretch``; None stretches in none.
        stretch: factors along them, positive, shape [R].

    """

    loc: Tensor
    scale: Tensor
    factor: Tensor | None
    directions: Tensor | None
    stretch: Tensor | None

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        factor: Tensor | None = None,
        directions: Tensor | None = None,
        stretch: Tensor | None = None,
    ) -> None:
        super().__init__()
        for name, value in {
            "loc": loc,
            "scale": scale,
            "factor": factor,
            "directions": directions,
            "stretch": stretch,
        }.items():
            self.register_buffer(name, value)

    @property
    def size(self) -> int:
        """D."""
        return len(self.loc)

    def forward(self, z: Tensor) -> Tensor:
        """X of z, shape [..., D]."""
        if self.factor is not None:
            z = z @ self.factor.mT
        if self.directions is not None and self.stretch is not None:
            z = z + ((z @ self.directions) * (self.stretch - 1.0)) @ self.directions.mT
        return self.loc + self.scale * z

    def inverse(self, x: Tensor) -> Tensor:
        """Z of x, shape [..., D]."""
        z = (x - self.loc) / self.scale
        if self.directions is not None and self.stretch is not None:
            z = z + ((z @ self.directions) * (1.0 / self.stretch - 1.0)) @ self.directions.mT
        if self.factor is None:
            return z
        solved = torch.linalg.solve_triangular(self.factor, z.reshape(-1, self.size).mT, upper=False)
        return solved.mT.reshape(z.shape)

    def log_density(self, x: Tensor) -> Tensor:
        """Of the normal that a standard normal z becomes, at x, shape [..., D]: shape [...]."""
        z = self.inverse(x)
        return -0.5 * (z * z).sum(-1) - 0.5 * self.size * math.log(2.0 * math.pi) - self.log_volume()

    def log_volume(self) -> Tensor:
        """Log of the factor by which volumes change from z to x: shape []."""
        found = self.scale.log().sum()
        if self.factor is not None:
            found = found + self.factor.diagonal().log().sum()
        return found if self.stretch is None else found + self.stretch.log().sum()
