"""Limited-memory BFGS from many points at once: Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4.

All points are evaluated together, whether they search along a line or begin a new one; so a search from sixteen points
costs as many calls as the longest of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DECREASE = 1e-4
"""Of what the slope promises, the part that a step must gain (Armijo)."""
SHORTEST = 1e-12
"""Steps along a direction below this part of it are given up."""


@dataclass(frozen=True)
class Path:
    """A search's accepted points, the start first: T of them."""

    points: Tensor
    """Shape [T, D]."""
    values: Tensor
    """Shape [T]."""
    gradients: Tensor
    """Shape [T, D]."""
    converged: bool


class Memory:
    """Steps and changes of the gradient of K searches, the latest ``depth`` of each."""

    def __init__(self, depth: int, like: Tensor) -> None:
        self._steps = like.new_zeros(depth, *like.shape)
        self._changes = like.new_zeros(depth, *like.shape)
        self._inverse = like.new_zeros(depth, len(like))
        self._scale = like.new_ones(len(like), 1)

    def add(self, step: Tensor, change: Tensor, which: Tensor) -> None:
        """Remember those of the searches ``which``; where the curvature is not positive, nothing."""
        product = (step * change).sum(-1)
        which = which & (product > 1e-14 * (change * change).sum(-1)) & product.isfinite()
        for rows, new in ((self._steps, step), (self._changes, change), (self._inverse, 1.0 / product)):
            rows[:, which] = torch.cat([rows[1:, which], new[None, which]])
        self._scale[which] = (product / (change * change).sum(-1))[which, None]

    def forget(self, which: Tensor) -> None:
        """Begin anew for some searches."""
        for rows in (self._steps, self._changes, self._inverse):
            rows[:, which] = 0.0

    def empty(self) -> Tensor:
        """Searches that remember nothing: shape [K]."""
        return self._inverse[-1] == 0.0

    def times(self, gradient: Tensor) -> Tensor:
        """The inverse Hessian times the gradient: shape [K, D]."""
        depth, found = len(self._inverse), gradient
        shares: list[Tensor] = [gradient[..., :1]] * depth
        for place in reversed(range(depth)):
            shares[place] = self._inverse[place, :, None] * (self._steps[place] * found).sum(-1, keepdim=True)
            found = found - shares[place] * self._changes[place]
        found = found * self._scale
        for place in range(depth):
            back = self._inverse[place, :, None] * (self._changes[place] * found).sum(-1, keepdim=True)
            found = found + self._steps[place] * (shares[place] - back)
        return found


def ascend(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    starts: Tensor,
    most: int = 1000,
    depth: int = 10,
    tolerance: float = 1e-9,
) -> list[Path]:
    """Search for maxima of a function from several points.

    Args:
        function: points [K, D] → values [K], gradients [K, D].
        starts: shape [K, D].
        most: calls of the function.
        depth: steps that are remembered.
        tolerance: a search has converged where its next step promises less than this, relative to the value.

    Returns:
        A path for each start; of one point where the function is not finite there.

    """
    point = starts.clone()
    value, gradient = function(point)
    running = value.isfinite() & gradient.isfinite().all(-1)
    converged = torch.zeros_like(running)
    paths = [[(point[k], value[k], gradient[k])] for k in range(len(point))]
    memory = Memory(depth, point)
    direction, slope, length = _line(memory, gradient)
    for _ in range(most):
        arrived = running & (slope.abs() <= tolerance * (1.0 + value.abs()))
        stuck = running & ~arrived & ((length < SHORTEST) | (slope <= 0.0))
        # What is remembered may be why a line leads nowhere: the gradient alone is tried before giving up.
        again = stuck & ~memory.empty()
        memory.forget(again)
        converged, running = converged | arrived, running & ~(arrived | (stuck & ~again))
        if not bool(running.any()):
            break
        direction, slope, length = _where(again, _line(memory, gradient), (direction, slope, length))
        trial = torch.where(running[:, None], point + length[:, None] * direction, point)
        found, slopes = function(trial)
        fine = found.isfinite() & slopes.isfinite().all(-1)
        accepted = running & fine & (found >= value + DECREASE * length * slope)
        memory.add(trial - point, gradient - slopes, accepted)
        point, value, gradient = _where(accepted, (trial, found, slopes), (point, value, gradient))
        for k in accepted.nonzero().flatten().tolist():
            paths[k].append((point[k], value[k], gradient[k]))
        direction, slope, length = _where(accepted, _line(memory, gradient), (direction, slope, 0.5 * length))
    return [_path(rows, bool(done)) for rows, done in zip(paths, converged, strict=True)]


def _line(memory: Memory, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A direction [K, D], the slope along it [K], and the part of it to try first [K]."""
    direction = memory.times(gradient)
    slope = (direction * gradient).sum(-1)
    size = direction.norm(dim=-1).clamp(min=1e-300)
    return direction, slope, torch.where(memory.empty(), (1.0 / size).clamp(max=1.0), 1.0)


def _where(which: Tensor, yes: tuple[Tensor, ...], no: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """By search, of tensors with a leading dimension of searches."""
    return tuple(
        torch.where(which.view(-1, *[1] * (one.dim() - 1)), one, other) for one, other in zip(yes, no, strict=True)
    )


def _path(rows: list[tuple[Tensor, Tensor, Tensor]], converged: bool) -> Path:
    points, values, gradients = (torch.stack(column) for column in zip(*rows, strict=True))
    return Path(points, values, gradients, converged)
