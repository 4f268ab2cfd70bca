"""At which parameters gradients are measured: those that a fit starts with, or those that it has found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sweepvi.engine import Snapshot
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.trial_run import start
from sweepvi.errors import CheckpointError, ConfigError, Problem, listed, raise_if
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX, OWN_PARAMETERS
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe

NOT_THE_FITS = (OWN_PARAMETERS, BASELINE_STATE_PREFIX)
"""What the names of an estimator's own parameters and averages begin with."""


@dataclass(frozen=True)
class Place:
    """Parameters of a recipe."""

    words: str
    """Where that is: ``at the start of the fit``."""
    snapshot: Snapshot | None = None
    """The end of a run; None is a fit's start."""


@contextmanager
def opened(recipe: Recipe, place: Place) -> Iterator[EagerEngine]:
    """Inside, the engine of a recipe with its parameters at a place; outside, nothing has changed.

    Baselines start anew everywhere, so that no estimator has an advantage at the end of its own fit. Raises
    ``ConfigError`` if the recipe does not run, or if the place is one of another model or guide.
    """
    with environment(recipe.settings, reachable_modules(recipe.reach())) as isolation:
        engine = start(recipe, isolation)
        if place.snapshot is not None:
            _move(engine, _without_baselines(place.snapshot))
        yield engine


def _move(engine: EagerEngine, snapshot: Snapshot) -> None:
    try:
        known = snapshot.get("param")[0]
        missing = [name for name in engine.optimization.live if name not in known and not name.startswith(NOT_THE_FITS)]
        message = f"the run is of another model or guide: it has no parameter {listed(missing)}; its own: "
        raise_if([Problem("at", message + listed(known))] if missing else [])
        engine.restore_result(snapshot)
    except CheckpointError as error:
        raise ConfigError([Problem("at", str(error))]) from error


def _without_baselines(snapshot: Snapshot) -> Snapshot:
    parts = tuple(f"{part}/{own}" for part in ("param", "result") for own in NOT_THE_FITS)
    return Snapshot({k: v for k, v in snapshot.tensors.items() if not k.startswith(parts)}, snapshot.meta)
