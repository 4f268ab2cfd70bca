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
    """How many posteriors each method fits at each budget; then, by guide, gaps to the best ELBO and bias of means."""
    best: dict[str, float] = defaultdict(lambda: -math.inf)
    start: dict[str, list[float]] = defaultdict(list)
    fits: dict[int, Fits] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for score in scores:
        case = f"{score.posterior}, {score.guide}"
        if math.isfinite(score.elbo):
            best[case] = max(best[case], score.elbo)
        if score.contender == "start":
            start[case].append(score.elbo)
        else:
            fits[score.steps][score.contender, score.result][case].append(score)
    parts = []
    for steps in sorted(fits):
        rows = _rows(fits[steps], best)
        parts.append(f"### {steps:,} steps\n\n{_counts(rows, best, start)}")
        for guide in dict.fromkeys(score.guide for score in scores):
            parts.append(f"#### {steps:,} steps, {guide}\n\n{_gaps(rows, best, guide)}")
    return "\n\n".join(parts)


def _rows(fits: Fits, best: dict[str, float]) -> dict[str, dict[str, list[Score]]]:
    """Methods to show; of the grid, the default, and for each posterior by itself the best of all."""
    shown = [fit for fit in fits if not fit[0].startswith("ClippedAdam") or fit[0].endswith("lr=0.02")]
    rows = {f"{name}, {result}": fits[name, result] for name, result in shown}
    for result in ("last", "decayed"):
        grid = [fit for fit in fits if fit[0].startswith("ClippedAdam") and fit[1] == result]
        rows[f"ClippedAdam, best of grid, {result}"] = {
            case: min((fits[fit][case] for fit in grid), key=lambda own: _gap(own, top)) for case, top in best.items()
        }
    return rows


def _counts(rows: dict[str, dict[str, list[Score]]], best: dict[str, float], start: dict[str, list[float]]) -> str:
    lines = ["| method | gap < 0.1 | gap < 1 | gap < 10 | worse than the start |", "|---|--:|--:|--:|--:|"]
    for name, cases in rows.items():
        gaps = [_gap(own, best[case]) for case, own in cases.items()]
        near = [f"{sum(gap < bound for gap in gaps)} of {len(gaps)}" for bound in (0.1, 1, 10)]
        worse = [not score.elbo >= min(start[case]) for case, own in cases.items() for score in own]
        lines.append(f"| {name} | {' | '.join(near)} | {sum(worse)} of {len(worse)} fits |")
    return "\n".join(lines)


def _gaps(rows: dict[str, dict[str, list[Score]]], best: dict[str, float], guide: str) -> str:
    cases = [case for case in best if case.endswith(guide)]
    header = " | ".join(case.partition(",")[0].replace("_", " ") for case in cases)
    lines = [f"| method | {header} |", f"|---|{'--:|' * len(cases)}"]
    for name, own in rows.items():
        cells = [f"{_brief(_gap(own[case], best[case]))} ({_brief(_bias(own[case]))})" for case in cases]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gap(scores: list[Score], best: float) -> float:
    return statistics.median(best - score.elbo if math.isfinite(score.elbo) else math.inf for score in scores)


def _bias(scores: list[Score]) -> float:
    return statistics.median(score.bias if math.isfinite(score.bias) else math.inf for score in scores)


def _brief(number: float) -> str:
    if not math.isfinite(number):
        return "–"
    return (
        f"{number:.2f}"
        if number < 10
        else f"{number:.0f}"
        if number < 1e4
        else f"{number:.0e}".replace("e+0", "e").replace("e+", "e")
    )
