"""A recipe's geometry: found once for all fits that share model, data and geometry, and put around the model."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sweepvi.engine.log_joint import log_joint_of
from sweepvi.errors import ConfigError, Problem
from sweepvi.geometry import NoGeometry, NoGeometryError, Place
from sweepvi.geometry.laplace import Laplace
from sweepvi.recipe import Recipe, data_hash

REMEMBERED = 64
"""Geometries that a process keeps."""


@dataclass
class _Known:
    """What has been found, latest last; models are kept, so that their identity stays theirs."""

    places: OrderedDict[str, tuple[Any, Place]] = field(default_factory=OrderedDict)

    def get(self, key: str) -> Place | None:
        if key not in self.places:
            return None
        self.places.move_to_end(key)
        return self.places[key][1]

    def put(self, key: str, model: Any, place: Place) -> None:
        self.places[key] = model, place
        while len(self.places) > REMEMBERED:
            self.places.popitem(last=False)


_KNOWN = _Known()


def place_of(recipe: Recipe) -> Place | None:
    """Where a recipe's model is fitted; None if that is in its own coordinates.

    Raises ``ConfigError`` if the geometry does not exist, with the reason; whatever the model raises is passed on.
    """
    if isinstance(recipe.geometry, NoGeometry):
        return None
    key = _key(recipe)
    place = _KNOWN.get(key)
    if place is None:
        place = _located(recipe)
        _KNOWN.put(key, recipe.source.problem.model, place)
    return place


def searched(recipe: Recipe) -> Place:
    """The coordinates and modes that ``geometry=laplace`` finds, whatever the recipe's own; raises as that does."""
    geometry = Laplace()
    node = {"name": "laplace", **asdict(geometry)}
    place = place_of(replace(recipe, geometry=geometry, config={**recipe.config, "geometry": node}))
    assert place is not None
    return place


def _located(recipe: Recipe) -> Place:
    name = recipe.config["geometry"]["name"]
    try:
        with log_joint_of(recipe) as log_joint:
            found = recipe.geometry.locate(log_joint)
            return Place(log_joint.coordinates, found.affine.cpu(), found.modes, found.notes, log_joint.evaluations)
    except NoGeometryError as error:
        raise ConfigError([Problem.of("geometry", name, f"cannot be had here: {error}. Use geometry=none")]) from error


def _key(recipe: Recipe) -> str:
    """What a geometry depends on."""
    config = {group: recipe.config[group] for group in ("model", "geometry")}
    # What is summed out is not part of the coordinates; all other estimators leave the model as it is.
    keys = recipe.config["estimator"].items() if recipe.estimator.sums_out else ()
    config["estimator"] = {key: value for key, value in keys if key != "num_particles"}
    return json.dumps([config, data_hash(recipe), id(recipe.source.problem.model)], sort_keys=True, default=repr)
