"""sweepvi: stochastic variational inference in Pyro, declarative, reproducible, searchable."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepvi.api import fit, fit_many
    from sweepvi.errors import CheckpointError, ConfigError, DivergedError, SweepviError
    from sweepvi.probing.api import probe
    from sweepvi.results import FitResult
    from sweepvi.sweep.tuning import tune

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DivergedError",
    "FitResult",
    "SweepviError",
    "fit",
    "fit_many",
    "probe",
    "tune",
]

_HOME = {
    "fit": "sweepvi.api",
    "fit_many": "sweepvi.api",
    "probe": "sweepvi.probing.api",
    "tune": "sweepvi.sweep.tuning",
    "FitResult": "sweepvi.results",
    "CheckpointError": "sweepvi.errors",
    "ConfigError": "sweepvi.errors",
    "DivergedError": "sweepvi.errors",
    "SweepviError": "sweepvi.errors",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, and torch with them."""
    if name not in _HOME:
        raise AttributeError(f"module 'sweepvi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
