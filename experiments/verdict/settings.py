"""Thirty settings of mixed quality, bad ones on purpose, in eight programs: those of one differ in numbers only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DRAWS = 10_000
"""Of the posterior, by which each fit is judged."""

PROGRAMS: dict[str, dict[str, Any]] = {
    "independent": {"guide": "auto_normal", "dtype": "float32"},
    "independent-stl": {"guide": "auto_normal", "estimator": {"name": "stl", "num_particles": 8}, "dtype": "float64"},
    "full": {"guide": "auto_multivariate_normal", "dtype": "float64"},
    "laplace-independent": {"geometry": "laplace", "guide": "auto_normal", "dtype": "float32"},
    "laplace-full": {
        "geometry": "laplace",
        "guide": "auto_multivariate_normal",
        "estimator": {"name": "stl", "num_particles": 8},
        "dtype": "float64",
    },
    "pathfinder-low-rank": {
        "geometry": "pathfinder",
        "guide": "auto_low_rank_multivariate_normal",
        "estimator": {"name": "trace", "num_particles": 4},
        "dtype": "float64",
    },
    "standardize-full": {
        "geometry": "standardize",
        "guide": "auto_multivariate_normal",
        "estimator": {"name": "stl", "num_particles": 16},
        "dtype": "float64",
    },
    "laplace-flow": {
        "geometry": "laplace",
        "guide": "auto_real_nvp",
        "estimator": {"name": "stl", "num_particles": 64},
        "dtype": "float64",
    },
}
"""Name → keywords of ``sweepvi.fit``."""

INSTEAD = {
    "lotka_volterra": {
        "full": "independent",
        "pathfinder-low-rank": "laplace-full",
        "standardize-full": "laplace-full",
        "laplace-flow": "laplace-full",
    },
    **{name: {"laplace-flow": "laplace-full"} for name in ("hmm_example", "low_dim_gauss_mix", "nes")},
}
"""Posterior → program → the program that stands for it, where another takes minutes."""


@dataclass(frozen=True)
class Setting:
    """How a fit is run."""

    name: str
    program: str
    optimizer: dict[str, Any]
    steps: int
    decays: bool = False
    """Whether the step size falls to nothing along half a cosine."""
    restarts: int | None = None
    """None are four, or one on the eager engine, where the fits cannot be lanes."""
    start: dict[str, Any] = field(default_factory=dict)
    """Keys of the guide that say where it starts."""

    def keywords(self, program: str, seed: int) -> dict[str, Any]:
        """Those of :func:`sweepvi.fit`, in a program that may stand for its own."""
        common = PROGRAMS[program]
        return {
            **common,
            "guide": {"name": common["guide"], **self.start},
            "optimizer": self.optimizer,
            "scheduler": "cosine" if self.decays else "constant",
            "steps": self.steps,
            "restarts": self.restarts,
            "seed": seed,
            "posterior_draws": DRAWS,
            "compile": "never",
        }


def adam(lr: float) -> dict[str, Any]:
    return {"name": "adam", "lr": lr}


FAR = {"init": "sample", "init_scale": 0.02}
"""A draw of the prior, or (without one) the origin, and narrow: in a mode that is not the main one, or in none."""

SETTINGS = (
    Setting("defaults", "independent", {"name": "clipped_adam"}, 2000),
    Setting("far too small a step", "independent", adam(1e-4), 2000),
    Setting("decaying", "independent", adam(0.05), 2000, decays=True),
    Setting("far too large a step", "independent", adam(1.0), 1000),
    Setting("few steps", "independent", adam(0.02), 100),
    Setting("one start, far off", "independent", adam(0.05), 1000, decays=True, restarts=1, start=FAR),
    Setting("decaying", "independent-stl", adam(0.05), 2000, decays=True),
    Setting("large steps to the end", "independent-stl", adam(0.3), 1000),
    Setting("two hundred steps", "independent-stl", adam(0.02), 200),
    Setting("two starts, far off", "independent-stl", adam(0.02), 1000, restarts=2, start=FAR),
    Setting("decaying", "full", adam(0.05), 2000, decays=True),
    Setting("small steps", "full", adam(1e-3), 1000),
    Setting("large steps to the end", "full", adam(0.2), 1000),
    Setting("one start", "full", adam(0.02), 2000, decays=True, restarts=1),
    Setting("decaying", "laplace-independent", adam(0.02), 1000, decays=True),
    Setting("large steps to the end", "laplace-independent", adam(0.2), 500),
    Setting("far too small a step", "laplace-independent", adam(1e-5), 200, start={"init_scale": 3.0}),
    Setting("as the preset", "laplace-full", adam(0.05), 600, decays=True),
    Setting("large steps to the end", "laplace-full", adam(0.5), 300),
    Setting("few small steps, narrow start", "laplace-full", adam(1e-3), 100, start={"init_scale": 0.1}),
    Setting("one start, narrow", "laplace-full", adam(0.05), 600, decays=True, restarts=1, start={"init_scale": 0.1}),
    Setting("decaying", "pathfinder-low-rank", adam(0.02), 1000, decays=True),
    Setting("large steps to the end", "pathfinder-low-rank", adam(0.2), 500),
    Setting("few small steps", "pathfinder-low-rank", adam(1e-3), 50),
    Setting("decaying", "standardize-full", adam(0.05), 1000, decays=True),
    Setting("constant steps", "standardize-full", adam(0.01), 500),
    Setting("large steps of gradient descent", "standardize-full", {"name": "sgd", "lr": 0.05}, 500),
    Setting("as the preset, fewer steps", "laplace-flow", adam(0.01), 300, decays=True, restarts=1),
    Setting("large steps to the end", "laplace-flow", adam(0.1), 100, restarts=1),
    Setting("few steps", "laplace-flow", adam(0.01), 50, restarts=2),
)
"""A setting's place is the seed of its fits; its program is that of :data:`INSTEAD` where that says so."""
