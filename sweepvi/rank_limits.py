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
    parts = config["distributed"].get("accumulate", 1)
    if parts > 1 and engine["name"] == "lanes":
        yield Problem.of("distributed.accumulate", parts, "must be 1 with engine=lanes; use engine=eager")
    if parts > 1 and engine.get("restarts") not in (None, 1):
        message = f"must be null or 1 with distributed.accumulate={parts}, which is for engine=eager"
        yield Problem.of("engine.restarts", engine["restarts"], message)
    if engine.get("compile", "auto") == "always":
        message = f"must be auto or never with distributed={name}: machine code does not wait for other ranks"
        yield Problem.of("engine.compile", "always", message)
    if engine.get("noise", "fresh") != "fresh":
        message = f"must be fresh with distributed={name}: each rank has draws of its own"
        yield Problem.of("engine.noise", engine["noise"], message)
