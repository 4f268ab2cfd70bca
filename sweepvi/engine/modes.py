"""Which modes of a posterior a fitted guide covers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from sweepvi.engine.outcome import ModeCoverage
from sweepvi.estimators.sites import WHITENED
from sweepvi.geometry import Mode, Place
from sweepvi.guides.guide import Program
from sweepvi.problem import Problem

DRAWS = 400
"""Of the guide, by which it is told what it covers: a share of 1 % would be missed in one of 50 fits."""

MODES_SEED = 3_000_017

WITHIN = 5.0
"""Standard deviations of the squared distance, beyond its mean, within which a draw is of a mode's normal."""


def covered(place: Place | None, programs: Mapping[str, Program], problem: Problem) -> list[ModeCoverage] | None:
    """The modes that a geometry has found, and how much of the guide is at each; None if nobody has looked.

    Runs the guide as it stands: ``log_q`` of a mode is the log of the share of draws that are within its normal.
    Draws: seed afterwards.
    """
    if place is None or not place.modes:
        return None
    if len(place.modes) == 1:
        return [ModeCoverage(place.modes[0].log_evidence, 0.0)]
    drawn = _drawn(place, programs, problem)
    return [
        ModeCoverage(mode.log_evidence, math.log(share) if (share := _share(mode, drawn)) else -math.inf)
        for mode in place.modes
    ]


def _drawn(place: Place, programs: Mapping[str, Program], problem: Problem) -> Tensor:
    """Draws of the guide in the model's coordinates: shape [DRAWS, D]."""
    pyro.set_rng_seed(MODES_SEED)
    with torch.no_grad():
        rows = []
        for _ in range(DRAWS):
            trace: Any = poutine.trace(programs["guide"]).get_trace(*problem.args, **problem.kwargs)
            rows.append(trace.nodes[WHITENED]["value"].detach().double().cpu())
    return place.affine(torch.stack(rows))


def _share(mode: Mode, drawn: Tensor) -> float:
    apart = torch.linalg.solve_triangular(mode.factor, (drawn - mode.point).mT, upper=False)
    size = len(mode.point)
    return float(((apart**2).sum(0) < size + WITHIN * math.sqrt(2.0 * size)).double().mean())
