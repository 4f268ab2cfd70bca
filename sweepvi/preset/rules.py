"""The rule of ``preset=auto``: facts of a model in, settings out, told in docs/geometry.md.

A rung is tried where the one before it has not led to a fit that can be trusted. Why whitened coordinates go before
everything else: docs/geometry.md. Sticking the landing, many particles and flows: Agrawal, Sheldon & Domke, "Advances
in Black-Box VI", 2020; Agrawal & Domke, "Disentangling Impact of Capacity, Objective, Batchsize, Estimators, and
Step-Size on Flow VI", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sweepvi.engine.facts import Facts

TUNED_ENGINE = ("steps", "dtype", "restarts", "noise")
"""Keys of ``engine`` that the preset decides about, as far as the user has said nothing."""

FULL = 200
"""Latent scalars up to which a covariance is fitted in full, and bent by a flow: it has D(D+3)/2 parameters."""

WHITENED = 1000
"""Up to which the posterior is fitted in whitened coordinates: a Hessian has D² numbers."""

DOUBLE = 1000
"""Up to which arithmetic is in double precision."""


@dataclass(frozen=True)
class Rung:
    """Settings to try."""

    name: str
    nodes: Mapping[str, Mapping[str, Any]]
    """By group, with the keys that are not default."""
    note: str = ""
    """What a reader must know about a fit by these."""
    needs_mode: bool | None = None
    """Whether it is tried only where a mode was found, or only where none was; None if that does not matter."""


def rungs(facts: Facts) -> list[Rung]:
    """What to try for a model, in order."""
    if facts.why_no_geometry or facts.size > WHITENED:
        return [_plain(facts)]
    guides = ("auto_multivariate_normal", "auto_real_nvp") if facts.size <= FULL else ("auto_diagonal_normal",)
    first, *more = [_whitened("laplace", guide, facts) for guide in guides]
    return [
        first,
        *(replace(rung, needs_mode=True) for rung in more),
        replace(_whitened("pathfinder", guides[-1], facts), needs_mode=False),
    ]


def _whitened(geometry: str, guide: str, facts: Facts) -> Rung:
    flow = guide == "auto_real_nvp"
    particles = 64 if flow else 8
    return Rung(
        f"{geometry}, {guide}",
        {
            "geometry": {"name": geometry},
            "guide": {"name": guide},
            "estimator": _estimator(facts, particles),
            "optimizer": {"name": "adam", "lr": 0.01 if flow else 0.05},
            "scheduler": {"name": "cosine"},
            "engine": {"steps": 2000 if flow else 600, "dtype": "float64", **({"restarts": 1} if flow else {})},
        },
    )


def _estimator(facts: Facts, particles: int) -> dict[str, Any]:
    return {"name": "trace_enum" if facts.summed else "stl", "num_particles": particles}


def _plain(facts: Facts) -> Rung:
    """Independent normals, or the model's own guide, where nothing better is affordable."""
    guide = "own" if facts.brings_guide else "auto_normal"
    why = facts.why_no_geometry or f"{facts.size:,} latent scalars are too many"
    meaning = "" if facts.brings_guide else ", by independent normals: their sds are too small where it correlates"
    nodes: dict[str, Mapping[str, Any]] = {
        "guide": {"name": guide},
        "optimizer": {"name": "adam", "lr": 0.01},
        "scheduler": {"name": "cosine"},
        "engine": {"steps": 5000, "dtype": "float64" if facts.size <= DOUBLE else "float32"},
    }
    if facts.summed:
        nodes["estimator"] = {"name": "trace_enum"}
    return Rung(guide, nodes, f"preset: not in whitened coordinates ({why}){meaning}")
