"""Curvature in many coordinates: the Hessian's diagonal, and the leading directions of the rest by Lanczos's iteration.

Bekas, Kokiopoulou & Saad, "An Estimator for the Diagonal of a Matrix", 2007; Lehoucq, Sorensen & Yang, "ARPACK Users'
Guide", 1998, by SciPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import linalg
from torch import Tensor

from sweepvi.geometry.curvature import FLAT
from sweepvi.geometry.lbfgs import Path, ascend
from sweepvi.geometry.log_joint import LogJoint

EXACT = 5000
"""Coordinates up to which the Hessian's diagonal is computed, one after the other."""
AT_ONCE = 128
"""Directions whose products with the Hessian are held at a time; of a diagonal that is estimated, the probes."""
SCALINGS = 4
"""Times that a diagonal is estimated, each in the scale of the one before: probes see a balanced matrix best."""
CLIMBS = 3
"""Searches in scaled coordinates, each in those of the end of the one before."""
DIRECTIONS = 40
"""Directions that are told apart at most: half of the least curvature, half of the most."""
ACCURACY = 1e-2
"""Relative, of curvature along them."""
ROUNDS = 8
"""Restarts of Lanczos's iteration before what has converged must do."""


def scales_of(log_joint: LogJoint, point: Tensor, seed: int) -> tuple[Tensor, int]:
    """One over the root of the curvature along each coordinate, shape [D], and in how many there is none.

    Curvature the wrong way counts by its size. Where there is none, or it is not finite, the scale is 1.
    """
    exact = log_joint.size <= EXACT
    diagonal = _diagonal(log_joint, point) if exact else _probed(log_joint, point, seed)
    usable = _usable(diagonal)
    return torch.where(usable, diagonal.abs(), 1.0).rsqrt(), int((~usable).sum())


def _usable(diagonal: Tensor) -> Tensor:
    return diagonal.isfinite() & (diagonal.abs() > FLAT**2 * diagonal.abs().nan_to_num(0.0, 0.0).max())


def _diagonal(log_joint: LogJoint, point: Tensor) -> Tensor:
    """The Hessian's diagonal: shape [D]."""
    found = []
    for places in torch.arange(log_joint.size, device=point.device).split(AT_ONCE):
        directions = torch.zeros(len(places), log_joint.size).to(point)
        directions[range(len(places)), places] = 1.0
        found.append(log_joint.hessian_times(point, directions)[range(len(places)), places])
    return torch.cat(found)


def _probed(log_joint: LogJoint, point: Tensor, seed: int) -> Tensor:
    """An estimate of the same, by random signs."""
    generator = torch.Generator("cpu").manual_seed(seed)
    scale, diagonal = torch.ones_like(point), torch.ones_like(point)
    for _ in range(SCALINGS):
        signs = torch.randint(0, 2, (AT_ONCE, log_joint.size), generator=generator, device="cpu").to(point) * 2.0 - 1.0
        diagonal = (signs * log_joint.hessian_times(point, signs * scale)).mean(0) / scale
        scale = torch.where(_usable(diagonal), diagonal.abs(), scale**-2).rsqrt()
    return diagonal


def climb(log_joint: LogJoint, path: Path, seed: int) -> Path:
    """A search that goes on from the end of another, in scaled coordinates, where it has not converged."""
    for _ in range(CLIMBS):
        if path.converged:
            break
        scale, _ = scales_of(log_joint, path.points[-1], seed)

        def scaled(z: Tensor, scale: Tensor = scale) -> tuple[Tensor, Tensor]:
            values, gradients = log_joint(z * scale)
            return values, gradients * scale

        [found] = ascend(scaled, (path.points[-1] / scale)[None])
        path = Path(found.points * scale, found.values, found.gradients / scale, found.converged)
    return path


def leading(log_joint: LogJoint, point: Tensor, scale: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Directions in scaled coordinates, orthonormal columns [D, R], and the curvature along each [R], signed.

    Those where it differs most from one, in which it is that of the scale.
    """

    def times(vector: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(np.ascontiguousarray(vector.reshape(-1))).to(point)
        found = -scale * log_joint.hessian_times(point, (scale * direction)[None])[0]
        return found.cpu().numpy()

    size = log_joint.size
    # SciPy's own types are those of some of its cases.
    scipy: Any = linalg
    operator = scipy.LinearOperator((size, size), matvec=times, dtype=np.float64)
    begin = np.random.default_rng(seed).standard_normal(size)
    count = min(DIRECTIONS, size // 2)
    try:
        values, vectors = scipy.eigsh(operator, k=count, which="BE", v0=begin, tol=ACCURACY, maxiter=ROUNDS)
    except linalg.ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    return torch.from_numpy(np.ascontiguousarray(vectors)).to(point), torch.from_numpy(np.array(values)).to(point)
