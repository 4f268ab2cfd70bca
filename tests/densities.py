"""Log densities for geometries, without models: of a function of a vector."""

from __future__ import annotations

import torch
from torch.func import grad, grad_and_value, jacrev, vjp, vmap


class Density:
    """A ``LogJoint`` by automatic differentiation; points to start from are given, or uniform in (-2, 2)."""

    def __init__(self, function, size, starts=None):
        self.function, self.size, self.evaluations, self._starts = function, size, 0, starts

    def starts(self, count, seed):
        if self._starts is not None:
            return self._starts[:count]
        generator = torch.Generator().manual_seed(seed)
        return 4.0 * torch.rand(count, self.size, generator=generator, dtype=torch.float64) - 2.0

    def __call__(self, x):
        self.evaluations += len(x)
        gradients, values = vmap(grad_and_value(self.function))(x)
        return values, gradients

    def hessian(self, x):
        return jacrev(grad(self.function))(x)

    def hessian_times(self, x, directions):
        times = vjp(grad(self.function), x)[1]  # A Hessian is symmetric.
        return vmap(lambda v: times(v)[0])(directions)


def covariance(affine):
    """Of the normal that an affine map makes of a standard one."""
    root = affine(torch.eye(affine.size, dtype=affine.loc.dtype)) - affine.loc
    return root.mT @ root
