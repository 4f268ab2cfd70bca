"""Ready settings of a whole fit, by name: ``preset=NAME``. conf/preset has the same as files.

Why whitened coordinates go before everything else: docs/geometry.md. Sticking the landing, many particles and flows:
Agrawal, Sheldon & Domke, "Advances in Black-Box VI", 2020; Agrawal & Domke, "Disentangling Impact of Capacity,
Objective, Batchsize, Estimators, and Step-Size on Flow VI", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Nodes: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By group, the component's name and the keys that are not its defaults."""


def _whitened(geometry: str, guide: Mapping[str, Any], particles: int, lr: float, **engine: Any) -> Nodes:
    return {
        "geometry": {"name": geometry},
        "guide": guide,
        "estimator": {"name": "stl", "num_particles": particles},
        "optimizer": {"name": "adam", "lr": lr},
        "scheduler": {"name": "cosine"},
        "engine": {"dtype": "float64", **engine},
    }


_FLOW: dict[str, Any] = {"particles": 64, "lr": 0.01, "steps": 2000, "restarts": 1}

PORTFOLIO: dict[str, Nodes] = {
    "laplace_normal": _whitened("laplace", {"name": "auto_multivariate_normal"}, 8, 0.02, steps=2000),
    "laplace_flow": _whitened("laplace", {"name": "auto_real_nvp"}, **_FLOW),
    "pathfinder_flow": _whitened("pathfinder", {"name": "auto_real_nvp"}, **_FLOW),
    "laplace_heavy_tails": _whitened("laplace", {"name": "auto_real_nvp", "tail": 8.0}, **_FLOW),
    "laplace_mean_field": _whitened("laplace", {"name": "auto_diagonal_normal"}, 8, 0.05, steps=600),
    "mean_field": {
        "guide": {"name": "auto_normal"},
        "optimizer": {"name": "adam", "lr": 0.01},
        "scheduler": {"name": "cosine"},
        "engine": {"steps": 5000},
    },
}
"""Name → settings. What is not named has its default."""
