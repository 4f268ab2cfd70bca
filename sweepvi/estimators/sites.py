"""The latent variables of a model and its guide, as an estimator sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sweepvi.private import is_subsample

WHITENED = "whitened"
"""The one latent variable of a model in the coordinates of a geometry."""

PLACED = "_placed"
"""In the ``infer`` of a site of such a model: a latent variable of its own, whose value the geometry gives."""


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
    enumerated: str
    """How its ``infer`` asks for enumeration: ``parallel`` or ``sequential``; empty if it does not."""
    countable: bool = False
    """Whether its values can be enumerated: it is discrete, and finitely many values are possible."""
    model_path: bool = False
    """Whether draws of the model, too, are differentiable functions of noise."""


def latent_sites(model_trace: Any, guide_trace: Any) -> dict[str, LatentSite]:
    """Latent variables by name, the guide's first; traces are of ``pyro.poutine.trace``."""
    found = {name: site for name, site in model_trace.nodes.items() if is_latent(site)}
    in_guide = {name: site for name, site in guide_trace.nodes.items() if is_latent(site)}
    return {
        name: LatentSite(
            distribution=distribution_name(site["fn"]),
            path=bool(getattr(site["fn"], "has_rsample", False)),
            in_guide=name in in_guide,
            in_model=name in found,
            baseline=site["infer"].get("baseline") or {},
            enumerated=site["infer"].get("enumerate") or "",
            countable=is_countable(site),
            model_path=name in found and bool(getattr(found[name]["fn"], "has_rsample", False)),
        )
        for name, site in {**in_guide, **{k: v for k, v in found.items() if k not in in_guide}}.items()
    }


def entry_for(site: str, globs: Iterable[str]) -> str | None:
    """The entry that counts for a site: its own name, or else the first glob that matches; None if there is none."""
    known = list(globs)
    return site if site in known else next((glob for glob in known if fnmatchcase(site, glob)), None)


def is_latent(site: Any) -> bool:
    """Whether a trace's site is a latent variable."""
    return site["type"] == "sample" and not site["is_observed"] and not is_subsample(site)


def is_placed(site: Any) -> bool:
    """Whether a trace's site is a latent variable whose value a geometry gives; the trace has it as observed."""
    return site["type"] == "sample" and bool(site["infer"].get(PLACED))


def is_countable(site: Any) -> bool:
    """Whether the values of a trace's sample site can be enumerated."""
    return bool(getattr(site["fn"], "has_enumerate_support", False))


def distribution_name(fn: Any) -> str:
    """The class of a distribution, whatever shape or mask it was given."""
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "ExpandedDistribution",
        "MaskedDistribution",
    ):
        fn = fn.base_dist
    return type(fn).__name__
