"""``preset=auto`` as a run: checked before anything is written, saved rung by rung, resumed where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepvi import engine as engines
from sweepvi import recipe, registry, runs
from sweepvi.engine import Observer
from sweepvi.errors import ConfigError, Problem, listed, raise_if
from sweepvi.files import write_atomically
from sweepvi.preset.best import best_of
from sweepvi.preset.rules import Rung, rungs
from sweepvi.preset.said import under
from sweepvi.recipe import Recipe
from sweepvi.report import draw_losses
from sweepvi.results import FitResult, occupied
from sweepvi.run_folder import PRESET, RESULT, preset_text

ATTEMPTS = "attempts"
"""Folder, in that of a run by a preset, of all runs that were tried: a run folder each, by number."""

WRITTEN = ("own", "custom", registry.GIVEN)
"""Guides that somebody has written for the model's own variables."""


@dataclass(frozen=True)
class Ladder:
    """A fit by the rule of ``preset=auto``, ready to run."""

    config: Mapping[str, Any]
    """A node for every group, with the defaults where nothing is said."""
    given: Mapping[str, Any]
    """Objects that stand for a group's component, the model's problem among them."""
    said: frozenset[str]
    """Groups and keys ``engine.KEY`` that the user has decided about."""
    rungs: list[Rung]
    """What to try, in order."""

    def recipe(self, rung: Rung) -> Recipe:
        """The recipe of a rung's settings, where the user has said nothing; ``ConfigError`` if there is none."""
        return recipe.build(under(self.config, rung.nodes, self.said), self.given)


def ladder(config: Mapping[str, Any], given: Mapping[str, Any], said: frozenset[str]) -> Ladder:
    """The ladder of a configuration; runs model and guide once.

    Raises ``ConfigError`` if none of its rungs can be run, with what is wrong with the last one.
    """
    base = recipe.build(config, given)
    facts = engines.facts_of(base)
    found = rungs(facts, "guide" not in said or config["guide"]["name"] not in WRITTEN)
    made = Ladder(base.config, {**given, "model": base.source.problem}, said, found)
    for place, rung in enumerate(found):
        try:
            engines.trial_run(made.recipe(rung))
        except ConfigError:
            if place + 1 == len(found):
                raise_if(_all_discrete(facts))
                raise
        else:
            break
    return made


def _all_discrete(facts: engines.Facts) -> list[Problem]:
    if facts.size or not facts.summed:
        return []
    message = f"its latent variables are all discrete ({listed(facts.summed[:3])}); guides are for continuous ones"
    return [Problem("model", message)]


def climb(made: Ladder, folder: Path | None, observer: Callable[[Recipe], Observer], resume: bool = False) -> FitResult:
    """Fit rung by rung; the best of what was tried is saved in the folder, all of it below it.

    With ``resume``, what is finished there is not fitted again. Raises as ``sweepvi.fit`` does.
    """
    if folder is not None:
        if not resume:
            raise_if(occupied(folder) or occupied(folder / ATTEMPTS / "1"))
        write_atomically(folder / PRESET, preset_text(made.config, made.said))

    def attempt(number: int, rung: Rung) -> FitResult:
        one = made.recipe(rung)
        own = None if folder is None else folder / ATTEMPTS / f"{number + 1}"
        return runs.run(one, own, observer(one), resume)

    result = best_of(made.rungs, attempt)
    if folder is not None:
        result.write(folder)
        draw_losses(folder)
    return result


def unfinished(folder: Path) -> bool:
    """Whether a run by ``preset=auto`` in a folder was stopped before all was tried that was to be."""
    if not (folder / PRESET).exists():
        return False
    if not (folder / RESULT).exists():
        return True
    attempts = json.loads((folder / RESULT).read_text(encoding="utf-8")).get("attempts", [])
    return any(attempt["status"] == "interrupted" for attempt in attempts)
