"""The latent variables of a model and its guide, as an estimator sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweepvi.private import is_subsample


@dataclass(frozen=True)
class LatentSite:
    """A latent variable."""

    distribution: str
    """The class of its distribution: in the guide, if it is there."""
    path: bool
    """Whether its draws are differentiable functions of noise (reparameterised)."""
    in_guide: bool
    in_model: bool
    baseline: Mapping[str, Any]
    """The guide's own ``infer={"baseline": …}``, empty if there is none."""
    enumerated: bool
    """Whether its ``infer`` asks for enumeration."""


def latent_sites(model_trace: Any, guide_trace: Any) -> dict[str, LatentSite]:
    """Latent variables by name, the guide's first; traces are of ``pyro.poutine.trace``."""
    found = {name: site for name, site in model_trace.nodes.items() if _is_latent(site)}
    in_guide = {name: site for name, site in guide_trace.nodes.items() if _is_latent(site)}
    return {
        name: LatentSite(
            distribution=_distribution_name(site["fn"]),
            path=bool(getattr(site["fn"], "has_rsample", False)),
            in_guide=name in in_guide,
            in_model=name in found,
            baseline=site["infer"].get("baseline") or {},
            enumerated=bool(site["infer"].get("enumerate")),
        )
        for name, site in {**in_guide, **{k: v for k, v in found.items() if k not in in_guide}}.items()
    }


def _is_latent(site: Any) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not is_subsample(site)


def _distribution_name(fn: Any) -> str:
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "ExpandedDistribution",
        "MaskedDistribution",
    ):
        fn = fn.base_dist
    return type(fn).__name__
