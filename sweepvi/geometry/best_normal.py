"""The normal of highest ELBO along a search.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", JMLR 23(306), 2022,
algorithm 1; all normals of a path see the same noise, and only those that are best by few draws get all of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.lbfgs import Path
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.quasi_newton import normals

FEW = 5
"""Draws by which all normals of a path are compared."""
FINALISTS = 8
"""Normals of a path, the best by few draws, that are compared by all."""
ALONG = 100
"""Normals of a path that are looked at, at even distances if it has more."""


class Noise:
    """Standard normals, the same whatever the device."""

    def __init__(self, size: int, seed: int, device: torch.device) -> None:
        self._size, self._device = size, device
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, count: int) -> Tensor:
        """The next draws: shape [count, D]."""
        made = torch.randn(count, self._size, generator=self._generator, dtype=torch.float64, device="cpu")
        return made.to(self._device)


def best_along(log_joint: LogJoint, path: Path, noise: Tensor) -> AffineMap | None:
    """The normal of highest ELBO along a path, on common noise; None if no ELBO is finite."""
    candidates = list(normals(path, ALONG))
    for draws, keep in ((noise[:FEW], FINALISTS), (noise, 1)):
        if not candidates:
            return None
        values = elbos(log_joint, candidates, draws)
        ranked = sorted(range(len(candidates)), key=lambda place: float(values[place]), reverse=True)
        candidates = [candidates[place] for place in ranked[:keep] if float(values[place]) > -math.inf]
    return candidates[0] if candidates else None


def elbos(log_joint: LogJoint, candidates: list[AffineMap], noise: Tensor) -> Tensor:
    """Of each candidate; minus infinity where a draw has no finite density."""
    draws = torch.stack([candidate(noise) for candidate in candidates])
    values = log_joint(draws.reshape(-1, noise.shape[-1]))[0].reshape(draws.shape[:-1])
    entropy = torch.stack([candidate.log_volume() for candidate in candidates])
    own = 0.5 * (noise * noise).sum(-1).mean() + 0.5 * noise.shape[-1] * math.log(2.0 * math.pi)
    return torch.where(values.isfinite().all(-1), values.mean(-1) + own + entropy, -torch.inf)
