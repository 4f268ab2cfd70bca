"""What a configuration must say so that its fit can run on several processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweepvi.errors import Problem
from sweepvi.frozen_noise import is_minimizer


def on_ranks(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's fit runs on several processes."""
    node = config.get("distributed")
    return isinstance(node, Mapping) and node.get("name", "none") != "none"


def problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """What of a configuration does not go with several processes; all its nodes are valid by themselves."""
    name, engine = config["distributed"]["name"], config["engine"]
    if is_minimizer(config["optimizer"]):
        message = f"moves by losses that one process computes; it does not go with distributed={name}"
        yield Problem.of("optimizer", config["optimizer"]["name"], message)
    if engine["name"] == "lanes":
        yield Problem.of("engine", "lanes", f"fits with distributed={name} run on the eager engine; use engine=eager")
    if engine.get("restarts") not in (None, 1):
        yield Problem.of("engine.restarts", engine["restarts"], f"must be null or 1 with distributed={name}")
    if engine.get("noise", "fresh") != "fresh":
        message = f"must be fresh with distributed={name}: each rank has draws of its own"
        yield Problem.of("engine.noise", engine["noise"], message)
