"""The study's tables, in Markdown, from the scores of its fits."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Score:
    """A finished fit.

    ``result`` is what was scored: ``last``, the last iterate; ``average``, what the rule averages; ``decayed``, the
    last iterate of a fit whose step size fell to zero.
    """

    posterior: str
    guide: str
    contender: str
    seed: int
    steps: int
    result: str
    elbo: float
    bias: float


Fits: TypeAlias = dict[tuple[str, str], dict[str, list[Score]]]
"""Contender and result → posterior → one score a seed."""


def tables(scores: list[Score]) -> str:
    """For each guide and budget, gaps to the best ELBO, and the bias of means."""
    parts = []
    for guide in dict.fromkeys(score.guide for score in scores):
        own = [score for score in scores if score.guide == guide]
        best: dict[str, float] = defaultdict(lambda: -math.inf)
        start: dict[str, list[float]] = defaultdict(list)
        for score in own:
            if math.isfinite(score.elbo):
                best[score.posterior] = max(best[score.posterior], score.elbo)
            if score.contender == "start":
                start[score.posterior].append(score.elbo)
        for steps in sorted({score.steps for score in own} - {0}):
            fits: Fits = defaultdict(lambda: defaultdict(list))
            for score in own:
                if score.steps == steps:
                    fits[score.contender, score.result][score.posterior].append(score)
            parts.append(f"### {guide}, {steps:,} steps\n\n{_table(fits, best, start)}")
    return "\n\n".join(parts)


def _table(fits: Fits, best: dict[str, float], start: dict[str, list[float]]) -> str:
    posteriors = list(best)
    lines = [f"| method | {' | '.join(posteriors)} | worse than start |", f"|---|{'--:|' * (len(posteriors) + 1)}"]
    rows = [(*fit, fits[fit]) for fit in fits if not fit[0].startswith("ClippedAdam") or "lr=0.02" in fit[0]]
    for result in ("last", "decayed"):
        grid = [name for name, other in fits if name.startswith("ClippedAdam") and other == result]
        tuned = {
            posterior: min((fits[name, result][posterior] for name in grid), key=lambda own: _gap(own, best[posterior]))
            for posterior in posteriors
        }
        rows.append(("ClippedAdam, best lr of grid", result, tuned))
    for name, result, own in rows:
        cells = [f"{_brief(_gap(own[p], best[p]))} ({_brief(_bias(own[p]))})" for p in posteriors]
        lost = sum(not score.elbo >= min(start[p]) for p in posteriors for score in own[p])
        lines.append(f"| {name}, {result} | {' | '.join(cells)} | {lost} of {sum(map(len, own.values()))} |")
    return "\n".join(lines)


def _gap(scores: list[Score], best: float) -> float:
    return statistics.median(best - score.elbo if math.isfinite(score.elbo) else math.inf for score in scores)


def _bias(scores: list[Score]) -> float:
    return statistics.median(score.bias if math.isfinite(score.bias) else math.inf for score in scores)


def _brief(number: float) -> str:
    if not math.isfinite(number):
        return "–"
    return f"{number:.2f}" if number < 10 else f"{number:.0f}" if number < 1e4 else f"{number:.0e}".replace("e+0", "e")
