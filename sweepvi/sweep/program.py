"""Which trials may be lanes of one program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sweepvi import registry
from sweepvi.frozen_noise import is_minimizer

OWN_TO_A_LANE = ("seed", "steps", "on_nonfinite", "restarts", "log_every", "checkpoint_every", "threads", "memory")
"""Keys of ``engine`` in which they may differ."""


def program_of(config: Mapping[str, Any]) -> str:
    """Equal for configurations of one program: they differ in numbers, seeds and update rules only."""
    guide, estimator = config["guide"], config["estimator"]
    parts = {
        "model": config["model"],
        "geometry": config["geometry"],
        "guide": _without(guide, _class_attribute("guide", guide, "start_keys")),
        "estimator": _without(estimator, _class_attribute("estimator", estimator, "varies")),
        "engine": _without(config["engine"], OWN_TO_A_LANE),
        # Fits by minimizers run one by one, and are no lanes of others.
        "minimizer": is_minimizer(config["optimizer"]),
    }
    return json.dumps(parts, sort_keys=True, default=repr)


def _class_attribute(group: str, node: Mapping[str, Any], name: str) -> Iterable[str]:
    for row in registry.rows(group):
        if row.name == node["name"]:
            return getattr(row.component(), name)
    return ()


def _without(node: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in set(keys)}
