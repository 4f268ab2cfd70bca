"""What the user has decided about a fit, which a preset leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sweepvi import registry

TUNED_GROUPS = ("geometry", "guide", "estimator", "optimizer", "scheduler", "partition", "stop")
"""Groups that a preset decides about."""

TUNED_ENGINE = ("steps", "dtype", "restarts", "noise")
"""Keys of ``engine`` of which the same is true."""


def said(config: Mapping[str, Any], defaults: Mapping[str, str], named: Iterable[str] = ()) -> frozenset[str]:
    """Groups and keys ``engine.KEY`` of those that presets decide about, that are not left to them.

    Args:
        config: a node for every group; keys that a node leaves out have their defaults.
        defaults: group → name of its default component.
        named: groups and keys that were chosen or set by name, to whatever value.

    """
    named = set(named)
    found = {group for group in TUNED_GROUPS if group in named or any(key.startswith(f"{group}.") for key in named)}
    found |= {group for group in TUNED_GROUPS if not _is_default(group, config[group], defaults[group])}
    engine = config["engine"]
    plain = _defaults("engine", engine["name"])
    found |= {f"engine.{key}" for key in TUNED_ENGINE if f"engine.{key}" in named}
    found |= {f"engine.{key}" for key in TUNED_ENGINE if key in engine and engine[key] != plain.get(key, engine[key])}
    # The eager engine is chosen for what it does, one draw after another; no preset is for that.
    return frozenset(found | ({"engine"} if engine["name"] == "eager" else set()))


def untuned(said: frozenset[str]) -> bool:
    """Whether nothing that has been said has to do with tuning: the type of numbers has to do with the data."""
    return said <= {"engine.dtype"}


def _is_default(group: str, node: Mapping[str, Any], default: str) -> bool:
    if node.get("name") != default:
        return False
    plain = _defaults(group, default)
    return all(plain.get(key) == value for key, value in node.items() if key != "name")


def _defaults(group: str, name: str) -> dict[str, Any]:
    """The keys of a component with the values that they have if nothing is said."""
    specs = next((row.specs() for row in registry.rows(group) if row.name == name), ())
    return {spec.name: registry.plain(spec.default, spec.key.component) for spec in specs if not spec.required}


def under(config: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], left: frozenset[str]) -> dict[str, Any]:
    """A configuration with a preset's settings, but for what is ``left`` as it is: see :func:`said`."""
    own = {group: node for group, node in nodes.items() if group not in (*left, "engine")}
    known = _defaults("engine", config["engine"]["name"])
    engine = {key: value for key, value in nodes["engine"].items() if key in known and f"engine.{key}" not in left}
    return {**config, **own, "engine": {**config["engine"], **engine}}
