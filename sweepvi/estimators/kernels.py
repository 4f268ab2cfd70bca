"""Kernels between draws: the stationary and polynomial ones of ``pyro.contrib.gp.kernels``, by name.

Pyro's own objects put ``variance`` and ``lengthscale`` into the parameter store under those very names, where two
kernels overwrite each other; these are plain functions. Equations: Rasmussen & Williams, "Gaussian Processes for
Machine Learning", 2006, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.keys import Key, Keyed, keys_of

Kind: TypeAlias = Literal[
    "rbf", "rational_quadratic", "exponential", "matern32", "matern52", "cosine", "periodic", "linear", "polynomial"
]

_FOR = {
    "lengthscale": ("rbf", "rational_quadratic", "exponential", "matern32", "matern52", "cosine", "periodic"),
    "scale_mixture": ("rational_quadratic",),
    "period": ("periodic",),
    "bias": ("polynomial",),
    "degree": ("polynomial",),
}


@dataclass(frozen=True)
class Kernel(Keyed):
    """How alike two draws of a site are."""

    kind: Annotated[Kind, Key("the kernel's name, as in pyro.contrib.gp.kernels")]
    variance: Annotated[float, Key("factor on the kernel", gt=0)] = 1.0
    lengthscale: Annotated[float, Key("distance at which draws stop being alike, in the site's units", gt=0)] = 1.0
    scale_mixture: Annotated[float, Key("power of the rational quadratic's tail", gt=0)] = 1.0
    period: Annotated[float, Key("period, in the site's units", gt=0)] = 1.0
    bias: Annotated[float, Key("what is added to the product of two draws", gt=0)] = 1.0
    degree: Annotated[int, Key("power of a polynomial", ge=1)] = 1

    def conflicts(self) -> dict[str, str]:
        """A key that the kind does not use must be left at its default."""
        defaults = {spec.name: spec.default for spec in keys_of(Kernel)}
        return {
            name: f"is not used by kind={self.kind}"
            for name, kinds in _FOR.items()
            if self.kind not in kinds and getattr(self, name) != defaults[name]
        }

    def __call__(self, x: Tensor, z: Tensor) -> Tensor:
        """Between all pairs: [N, features] and [M, features] to [N, M]."""
        return self.variance * _FORMULAS[self.kind](self, x, z)

    @classmethod
    def of(cls, declared: Kind | Kernel) -> Kernel:
        """The kernel that a configuration's entry, a kind alone or a mapping, stands for."""
        return declared if isinstance(declared, Kernel) else cls(kind=declared)


def _distance(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    # Not by way of products: the distance of a draw to itself is exactly 0, and so is its gradient.
    return torch.cdist(x, z, compute_mode="donot_use_mm_for_euclid_dist") / kernel.lengthscale


def _rational_quadratic(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    return (1 + _distance(kernel, x, z).square() / (2 * kernel.scale_mixture)).pow(-kernel.scale_mixture)


def _matern32(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    far = math.sqrt(3) * _distance(kernel, x, z)
    return (1 + far) * torch.exp(-far)


def _matern52(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    far = math.sqrt(5) * _distance(kernel, x, z)
    return (1 + far + far.square() / 3) * torch.exp(-far)


def _periodic(kernel: Kernel, x: Tensor, z: Tensor) -> Tensor:
    sines = torch.sin(math.pi * (x.unsqueeze(1) - z) / kernel.period) / kernel.lengthscale
    return torch.exp(-2 * sines.square().sum(-1))


_FORMULAS: dict[str, Callable[[Kernel, Tensor, Tensor], Tensor]] = {
    "rbf": lambda kernel, x, z: torch.exp(-_distance(kernel, x, z).square() / 2),
    "rational_quadratic": _rational_quadratic,
    "exponential": lambda kernel, x, z: torch.exp(-_distance(kernel, x, z)),
    "matern32": _matern32,
    "matern52": _matern52,
    "cosine": lambda kernel, x, z: torch.cos(_distance(kernel, x, z)),
    "periodic": _periodic,
    "linear": lambda _, x, z: x @ z.T,
    "polynomial": lambda kernel, x, z: (kernel.bias + x @ z.T).pow(kernel.degree),
}
