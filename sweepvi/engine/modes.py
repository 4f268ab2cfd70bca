"""Which modes of a posterior a fitted guide covers."""

from __future__ import annotations

import math

import pyro
import torch
from torch import Tensor

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.fresh_draws import FreshDraws
from sweepvi.engine.geometry import searched
from sweepvi.engine.outcome import ModeCoverage
from sweepvi.engine.score import guide_trace_of, model_trace_of
from sweepvi.estimators.sites import WHITENED
from sweepvi.geometry import Mode, Place

DRAWS = 400
"""Of the guide, by which it is told what it covers: a share of 1 % would be missed in one of 50 fits."""

MODES_SEED = 3_000_017

WITHIN = 5.0
"""Standard deviations of the squared distance, beyond its mean, within which a draw is of a mode's normal."""

SMALL = 200
"""Latent scalars up to which modes are searched for where the fit's geometry has not done so."""

SHORT = 2000
"""Operations of a step up to which it is done: tracing a longer one would take more time than the fit."""


def modes_of(engine: EagerEngine, fresh: FreshDraws | None, operations: int) -> list[ModeCoverage] | None:
    """The modes of a posterior, and how much of the guide is at each; None if nobody has looked.

    They are those that the fit's geometry has found. Where it looks for none, they are searched for if the fit may be
    one to trust otherwise, and the model is small: once a process for each model and its data.

    Args:
        engine: with the fitted programs, which are run as they stand. Draws: seed afterwards.
        fresh: what draws of the guide show.
        operations: of a step of the fit, as it was traced.

    """
    place = engine.place
    if (place is None or not place.modes) and operations <= SHORT and _may_be_trusted(fresh):
        place = _searched(engine)
    return covered(engine, place)


def _may_be_trusted(fresh: FreshDraws | None) -> bool:
    if fresh is None or fresh.weights is None or fresh.sites.points:
        return False
    latent = sum(math.prod(fresh.sites.shapes.get(name, ())) for name in fresh.sites.latent)
    return latent <= SMALL and fresh.weights.usable


def _searched(engine: EagerEngine) -> Place | None:
    try:
        return searched(engine.recipe)
    except Exception:
        # A model need not have a density of one vector, nor run in double precision; its fit is finished all the same.
        return None


def covered(engine: EagerEngine, place: Place | None) -> list[ModeCoverage] | None:
    """Of modes that have been found: ``log_q`` of each is the log of the share of draws that are within its normal.

    Args:
        engine: with the fitted programs. Draws: seed afterwards.
        place: with the modes.

    """
    if place is None or not place.modes:
        return None
    if len(place.modes) == 1:
        return [ModeCoverage(place.modes[0].log_evidence, 0.0)]
    drawn = _drawn(engine, place)
    return [
        ModeCoverage(mode.log_evidence, math.log(share) if (share := _share(mode, drawn)) else -math.inf)
        for mode in place.modes
    ]


def _drawn(engine: EagerEngine, place: Place) -> Tensor:
    """Draws of the guide in the model's unconstrained coordinates: float64, shape [DRAWS, D], on the CPU."""
    pyro.set_rng_seed(MODES_SEED)
    rows = []
    for _ in range(DRAWS):
        rows.append(_coordinates(engine, place).detach().double().cpu())
    drawn = torch.stack(rows)
    return drawn if engine.place is None else engine.place.affine(drawn)


def _coordinates(engine: EagerEngine, place: Place) -> Tensor:
    """One draw of the guide: its own coordinates where it has a geometry, for which the model need not run."""
    guide = guide_trace_of(engine.programs, engine.problem)
    if WHITENED in guide:
        return guide.nodes[WHITENED]["value"]
    return place.coordinates.packed(model_trace_of(engine.programs, engine.problem, guide))


def _share(mode: Mode, drawn: Tensor) -> float:
    apart = torch.linalg.solve_triangular(mode.factor, (drawn - mode.point).mT, upper=False)
    size = len(mode.point)
    return float(((apart**2).sum(0) < size + WITHIN * math.sqrt(2.0 * size)).double().mean())
