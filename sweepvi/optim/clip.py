"""Gradient clipping, in three kinds: of each element, of each parameter's norm, of the norm of all together.

Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013, section 3.2, for norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from sweepvi.keys import Key, Keyed
from sweepvi.optim.arithmetic import Scalar, clamped, like

Bounds: TypeAlias = Mapping[str, Scalar | None]
"""A bound for each kind; None is none. A tensor has a bound a lane, float64, shape ``[K, 1]``."""


@dataclass(frozen=True)
class Clip(Keyed):
    """Bounds on the gradient; null is none. Those given all hold: each clips what the one before it has left."""

    global_norm: Annotated[float | None, Key("bound on the norm of all gradients together", gt=0)] = None
    norm: Annotated[float | None, Key("bound on the norm of each parameter's gradient", gt=0)] = None
    value: Annotated[float | None, Key("bound on the size of each element", gt=0)] = None

    def bounds(self) -> dict[str, float]:
        """The bounds there are, by kind."""
        kinds = {"global_norm": self.global_norm, "norm": self.norm, "value": self.value}
        return {kind: bound for kind, bound in kinds.items() if bound is not None}


def clipped(grad: Tensor, bounds: Bounds, sizes: Sequence[int], global_norm: Tensor | None = None) -> Tensor:
    """Clip concatenated gradients.

    Args:
        grad: gradients of parameters one after the other, shape ``[…, D]``; leading dimensions are lanes.
        bounds: the bounds by kind.
        sizes: number of elements of each parameter; they sum to D.
        global_norm: norm of all gradients, shape ``[…, 1]``, if there are more than these.

    Returns:
        The clipped gradient, in new memory. Where a bound is on a norm that is not finite, NaN for what is not.

    """
    if (bound := bounds.get("global_norm")) is not None:
        norm = _norm(grad) if global_norm is None else global_norm
        grad = _shrunk(grad, norm, bound)
    if (bound := bounds.get("norm")) is not None:
        grad = _shrunk(grad, _norms(grad, sizes), bound)
    if (bound := bounds.get("value")) is not None:
        grad = clamped(grad, bound)
    return grad


def _shrunk(grad: Tensor, norm: Tensor, bound: Scalar) -> Tensor:
    """A gradient scaled so that ``norm`` becomes at most ``bound``."""
    return grad * (like(bound, norm) / norm).clamp(max=1.0).to(grad.dtype)


def _norm(grad: Tensor) -> Tensor:
    """Norm of all; in float64, where no square of a float32 overflows."""
    return torch.linalg.vector_norm(grad, dim=-1, keepdim=True, dtype=torch.float64)


def _norms(grad: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each parameter's norm, at each of its elements."""
    owner = torch.repeat_interleave(torch.tensor(sizes, device=grad.device))
    squares = grad.new_zeros((*grad.shape[:-1], len(sizes)), dtype=torch.float64)
    return squares.index_add(-1, owner, grad.double() ** 2).sqrt().index_select(-1, owner)
