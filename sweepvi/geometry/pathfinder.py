"""Pathfinder's normal as coordinates: the best along quasi-Newton paths, where the posterior's mass is.

Zhang, Carpenter, Gelman & Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", JMLR 23(306), 2022.
Unlike there, the weight of a draw is by the density of all normals together, to which that with the draws' moments is
added: Cornuet, Marin, Mira & Robert, "Adaptive Multiple Importance Sampling", 2012. Weights are truncated: Ionides,
"Truncated Importance Sampling", 2008.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.best_normal import Noise, best_along
from sweepvi.geometry.coordinates import NoGeometryError
from sweepvi.geometry.geometry import Geometry, Located, Mode
from sweepvi.geometry.lbfgs import Path
from sweepvi.geometry.log_joint import LogJoint
from sweepvi.geometry.search import peaks, searches
from sweepvi.keys import Key

CALLS = 300
"""Of the log joint density, at most, for all searches together: where there is no mode, mass is not at their ends."""
POOL = 2000
"""Draws of all paths' normals together that are weighed, or ``PER_SIZE`` a coordinate if that is more."""
PER_SIZE = 40
WEIGHED = 250
"""Coordinates up to which that is done; above, draws are weighed to choose a path only."""
ENOUGH = 4
"""Effective draws a coordinate from which mean and covariance of the draws are taken."""
ROUNDS = 7
"""Times that their normal is computed; in between, it gives as many draws again, weighed with the others."""
WIDER = 1.5
"""Factor on its standard deviations, for one half of these draws."""
GOOD = 0.5
"""Effective part of all draws from which no more are needed."""
WITH_MODES = 1000
"""Coordinates up to which modes are looked for at the ends of paths: it takes Hessians."""


@dataclass(frozen=True)
class Pathfinder(Geometry):
    """Where mass is, not density: for posteriors without a mode, and with several."""

    starts: Annotated[int, Key("searches, from different points", ge=1, le=1024)] = 16
    draws: Annotated[int, Key("draws for the ELBO of each normal along a search", ge=2)] = 25
    seed: Annotated[int, Key("fixes where searches start, and draws, for all restarts", ge=0, lt=2**32)] = 0

    def locate(self, log_joint: LogJoint) -> Located:
        """See :meth:`Geometry.locate`."""
        paths = searches(log_joint, self.starts, self.seed, CALLS)
        noise = Noise(log_joint.size, self.seed, paths[0].points.device)
        common = noise(self.draws)
        found = [normal for normal in (best_along(log_joint, path, common) for path in paths) if normal is not None]
        if not found:
            raise NoGeometryError("no normal along the searches has draws of finite density")
        affine, note = _pooled(log_joint, found, noise)
        return Located(affine, _modes(log_joint, paths), (note,) if note else ())


def _pooled(log_joint: LogJoint, found: list[AffineMap], noise: Noise) -> tuple[AffineMap, str]:
    """The normal with the moments of weighted draws, where these suffice; else that of the path that weighs most."""
    size = log_joint.size
    count = max(POOL, PER_SIZE * size if size <= WEIGHED else 0)
    pool = _Pool(log_joint)
    each = math.ceil(count / len(found))
    for normal in found:
        pool.add(normal, noise(each))
    weights = pool.weights()
    heaviest = found[int(weights.reshape(len(found), each).sum(-1).argmax())]
    moments = None
    for _ in range(ROUNDS):
        effective = _effective(weights)
        if effective >= ENOUGH * size:
            moments = _with_moments(pool.draws, weights) or moments
        if moments is None or effective > GOOD * len(weights):
            break
        # Draws of a normal that is too narrow would never show it.
        pool.add(moments, noise(count // 2))
        pool.add(AffineMap(moments.loc, WIDER * moments.scale, moments.factor), noise(count // 2))
        weights = pool.weights()
    if moments is not None:
        return moments, ""
    few = f"{_effective(weights):.0f} effective draws are too few for a covariance"
    return heaviest, f"geometry: {few}; it is that of a single search"


class _Pool:
    """Draws of several normals, weighed by the density of all of them together."""

    def __init__(self, log_joint: LogJoint) -> None:
        self._log_joint = log_joint
        self._normals: list[tuple[AffineMap, int]] = []
        self._draws: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def draws(self) -> Tensor:
        """Shape [S, D]."""
        return torch.cat(self._draws)

    def add(self, normal: AffineMap, noise: Tensor) -> None:
        """Draws of a normal, from standard ones."""
        self._normals.append((normal, len(noise)))
        self._draws.append(normal(noise))
        self._values.append(self._log_joint(self._draws[-1])[0])

    def weights(self) -> Tensor:
        """Of all draws, with sum one: shape [S]."""
        draws = self.draws
        together = torch.stack([normal.log_density(draws) + math.log(count) for normal, count in self._normals])
        logs = torch.cat(self._values) - together.logsumexp(0)
        logs = torch.where(logs.isfinite(), logs, -torch.inf)
        largest = logs.logsumexp(0) - 0.5 * math.log(len(logs))
        return logs.clamp(max=largest).softmax(0)


def _effective(weights: Tensor) -> float:
    """Kish's effective number of draws."""
    return 1.0 / float((weights * weights).sum())


def _with_moments(draws: Tensor, weights: Tensor) -> AffineMap | None:
    mean = weights @ draws
    apart = draws - mean
    scale = (weights @ (apart * apart)).sqrt()
    # QR of weighted draws keeps digits that their covariance would lose.
    _, upper = torch.linalg.qr(weights.sqrt()[:, None] * apart / scale)
    factor = upper.mT * upper.diagonal().sign()
    if not bool(factor.isfinite().all()) or float(factor.diagonal().min()) <= 1e-12:
        return None
    return AffineMap(mean, scale, factor)


def _modes(log_joint: LogJoint, paths: list[Path]) -> tuple[Mode, ...]:
    if log_joint.size > WITH_MODES:
        return ()
    return tuple(peak.mode for peak in peaks(log_joint, paths) if peak.arrived)
