"""The normals along a search: at each of its points, a Newton step away, with the inverse Hessian that L-BFGS knows.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", JMLR 23(306), 2022,
algorithms 3 and 4. The diagonal is that of Gilbert & Lemaréchal, "Some Numerical Experiments with Variable-Storage
Quasi-Newton Algorithms", 1989.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.lbfgs import Path

DEPTH = 10
"""Steps that are remembered, with their changes of the gradient."""
CURVED = 1e-12
"""A step counts where s·y is more than this part of y·y."""


def normals(path: Path, most: int) -> Iterator[AffineMap]:
    """The normals at the points of a path after the start, each as the map of a standard normal.

    At ``most`` points, evenly among all if there are more; none where the estimate is not positive.
    """
    last = len(path.points) - 1
    chosen = {1 + round(share * (last - 1) / max(most - 1, 1)) for share in range(most)} if last > most else None
    diagonal = torch.ones_like(path.points[0])
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=DEPTH)
    for place in range(1, len(path.points)):
        step = path.points[place] - path.points[place - 1]
        change = path.gradients[place - 1] - path.gradients[place]
        if float(step @ change) > CURVED * float(change @ change):
            diagonal = _diagonal(diagonal, step, change)
            pairs.append((step, change))
        if chosen is None or place in chosen:
            found = _normal(path.points[place], path.gradients[place], diagonal, pairs)
            if found is not None:
                yield found


def _diagonal(diagonal: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The diagonal of the inverse Hessian after a step and a change of the gradient: algorithm 3, shape [D]."""
    a, b, c = y @ (diagonal * y), y @ s, s @ (s / diagonal)
    found = b / (a / diagonal + y * y - (a / c) * (s / diagonal) ** 2)
    return found if bool((found.isfinite() & (found > 0)).all()) else diagonal


def _normal(point: Tensor, gradient: Tensor, diagonal: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> AffineMap | None:
    """Algorithm 4, with the covariance √α (1 + Q V (λ - 1) Vᵀ Qᵀ) √α in place of its Cholesky factor."""
    root = diagonal.sqrt()
    if not pairs:
        return AffineMap(point + diagonal * gradient, root)
    s, y = (torch.stack(column, dim=-1) for column in zip(*pairs, strict=True))
    products = s.mT @ y
    curved, rest = products.diagonal(), products.triu()
    inverse = torch.linalg.solve_triangular(rest, torch.eye(len(rest)).to(rest), upper=True)
    corner = inverse.mT @ (torch.diag(curved) + y.mT @ (diagonal[:, None] * y)) @ inverse
    middle = torch.cat([torch.cat([torch.zeros_like(inverse), -inverse], 1), torch.cat([-inverse.mT, corner], 1)])
    basis, shares = torch.linalg.qr(torch.cat([root[:, None] * y, s / root[:, None]], dim=-1))
    inner = shares @ middle @ shares.mT
    if not bool(inner.isfinite().all()):
        return None
    values, vectors = torch.linalg.eigh(torch.eye(len(inner)).to(inner) + 0.5 * (inner + inner.mT))
    if not float(values[0]) > 0.0:
        return None
    directions = basis @ vectors
    scaled = root * gradient
    step = root * (scaled + ((scaled @ directions) * (values - 1.0)) @ directions.mT)
    return AffineMap(point + step, root, None, directions, values.sqrt())
