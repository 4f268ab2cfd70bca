"""A model in other coordinates: one latent vector, of which an affine map makes the model's own variables."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import pyro.distributions as dist

from sweepvi.estimators.sites import WHITENED
from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.coordinates import Coordinates, Placing
from sweepvi.guides.guide import Program


def whitened(model: Program, coordinates: Coordinates, affine: AffineMap) -> Program:
    """The model as a function of one latent vector ``whitened``, shape [D], under a flat density.

    Its log joint is the model's in unconstrained coordinates, with the volume of the affine map: so ELBOs in any
    coordinates are on one scale. The model's own variables are in its traces, with their values; attributes are those
    of the model.
    """
    return _Whitened(_run, affine, coordinates, model)


class _Whitened(functools.partial[Any]):
    """A partial application, so that what runs is found in it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.args[2], name)


def _run(affine: AffineMap, coordinates: Coordinates, model: Program, *args: Any, **kwargs: Any) -> Any:
    # A normal that counts for nothing: unlike an improper density, it can be drawn from to begin with.
    flat = dist.Normal(affine.loc.new_zeros(affine.size), 1.0).to_event(1).mask(False)
    vector = affine(pyro.sample(WHITENED, flat))
    with Placing(coordinates, vector) as placing:
        returned = model(*args, **kwargs)
    pyro.factor(f"{WHITENED}_volume", placing.log_volume + affine.log_volume())
    return returned
