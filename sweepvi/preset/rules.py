"""The rule of ``preset=auto``: facts of a model in, settings out, told in docs/presets.md.

A rung is tried where the one before it has not led to a fit that can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweepvi.engine.facts import Facts
from sweepvi.preset.portfolio import PORTFOLIO, Nodes

FULL = 200
"""Latent scalars up to which a covariance is fitted in full, and bent by a flow: it has D(D+3)/2 parameters."""

FEW, FEWER_PARTICLES = 50, 16
"""Latent scalars up to which a flow has all of its preset's particles, and how many it has above: a step takes as long
as there are of both."""

WHITENED = 1000
"""Up to which the posterior is fitted in whitened coordinates: a Hessian has D² numbers."""

DOUBLE = 1000
"""Up to which arithmetic is in double precision."""

SUMMING = "trace_enum"
"""The estimator of models with discrete variables."""


@dataclass(frozen=True)
class Rung:
    """Settings to try."""

    name: str
    nodes: Nodes
    note: str = ""
    """What a reader must know about a fit by these."""
    needs_mode: bool | None = None
    """Whether it is tried only where a mode was found, or only where none was; None if that does not matter."""


def rungs(facts: Facts, whitenable: bool = True) -> list[Rung]:
    """What to try for a model, in order.

    Args:
        facts: of the model.
        whitenable: whether the guide can be one in the coordinates of a geometry; one that the user has written is
            for the model's own variables.

    """
    why = "" if whitenable else "the guide is for the model's own variables"
    why = why or facts.why_no_geometry or (f"{facts.size:,} latent scalars are too many" * (facts.size > WHITENED))
    if why:
        return [_plain(facts, why)]
    if facts.size > FULL:
        return [_rung("laplace_mean_field", facts)]
    return [
        _rung("laplace_normal", facts),
        _rung("laplace_flow", facts, needs_mode=True),
        _rung("pathfinder_flow", facts, needs_mode=False),
    ]


def suited(facts: Facts) -> list[str]:
    """Names of the presets that can run for a model of these facts, at a cost that is bearable."""
    if facts.why_no_geometry or facts.size > WHITENED:
        return ["mean_field"]
    return list(PORTFOLIO) if facts.size <= FULL else ["laplace_mean_field", "mean_field"]


def _rung(name: str, facts: Facts, needs_mode: bool | None = None) -> Rung:
    nodes = _summing(PORTFOLIO[name], facts)
    if facts.size > FEW:
        particles = min(nodes["estimator"]["num_particles"], FEWER_PARTICLES)
        nodes = {**nodes, "estimator": {**nodes["estimator"], "num_particles": particles}}
    return Rung(name, nodes, needs_mode=needs_mode)


def _summing(nodes: Nodes, facts: Facts) -> Nodes:
    """The settings, but with an estimator that sums over discrete variables, if there are any."""
    if not facts.summed:
        return nodes
    return {**nodes, "estimator": {**nodes.get("estimator", {}), "name": SUMMING}}


def _plain(facts: Facts, why: str) -> Rung:
    """Independent normals, or the model's own guide, where nothing better is affordable."""
    nodes: dict[str, Mapping[str, Any]] = dict(_summing(PORTFOLIO["mean_field"], facts))
    nodes["engine"] = {**nodes["engine"], "dtype": "float64" if facts.size <= DOUBLE else "float32"}
    if facts.brings_guide:
        nodes["guide"] = {"name": "own"}
    meaning = "" if facts.brings_guide else ", by independent normals: their sds are too small where it correlates"
    return Rung("mean_field", nodes, f"preset: not in whitened coordinates ({why}){meaning}")
