"""``sweep=auto``: which presets are raced for a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sweepvi.config import Composition
from sweepvi.errors import raise_if

PRESET, EVERY = "preset", "auto"
"""The group, and what stands in ``sweep.space`` for all of its options that suit the model."""

SUMMING = ("estimator=trace_enum", "++estimator.num_particles=8")
"""In place of the presets' own estimator, where there are discrete variables to sum over."""


def races(space: Any) -> bool:
    """Whether a ready space is a race of all presets that suit the model."""
    return isinstance(space, Mapping) and space.get(PRESET) == EVERY


def raced(first: Composition, given: Mapping[str, Any], decided: Iterable[str]) -> tuple[str, list[str]]:
    """The presets to race, in the grammar of spaces, empty if there is one only; and overrides for this model.

    Args:
        first: a configuration of the sweep: which one does not matter, as far as the model is concerned.
        given: objects that stand for a group's component.
        decided: groups that are chosen already.

    Raises ``ConfigError`` if the model does not run on its data.

    """
    # Planning begins without torch.
    from sweepvi import engine, recipe
    from sweepvi.preset import PORTFOLIO, suited

    raise_if(recipe.check(first.config, given))
    facts = engine.facts_of(recipe.build(first.config, given))
    names = suited(facts)
    overrides = [] if "estimator" in decided or not facts.summed else [*SUMMING]
    whitened = any("geometry" in PORTFOLIO[name] for name in names)
    if facts.brings_guide and "guide" not in decided and not whitened:
        overrides.append("guide=own")
    if len(names) == 1:
        return "", [*overrides, f"{PRESET}={names[0]}"]
    return ",".join(names), overrides
