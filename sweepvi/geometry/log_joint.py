"""What a geometry is told about a model: its log joint density in unconstrained coordinates."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class LogJoint(Protocol):
    """Log p(data, x), with the volume of the transforms to the model's variables; float64."""

    size: int
    """Numbers of x, D."""
    evaluations: int
    """Gradients computed so far, of single points."""

    def starts(self, count: int, seed: int) -> Tensor:
        """Points to search from, shape [count, D]: first where autoguides would start, then draws of the prior."""
        ...

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of points, shape [K, D]: values [K], and gradients [K, D]; whatever is not finite where x is too far off."""
        ...

    def hessian(self, x: Tensor) -> Tensor:
        """The Hessian at a point of shape [D]: shape [D, D]."""
        ...

    def hessian_times(self, x: Tensor, directions: Tensor) -> Tensor:
        """The Hessian at a point of shape [D] times each of several directions, shape [K, D]: shape [K, D]."""
        ...
