"""Axes: how far they reach, and where a setting lies on one."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, json_to_distribution

from sweepvi.sweep.records import StudyRecord, TrialRecord
from sweepvi.sweep.table import typed

MARGIN = 0.05
"""Part of an axis that is left free at its end, and between rows beyond it."""

ROWS = 2
"""Rows beyond the axis: diverged trials, failed ones."""

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Window:
    """The part of a score's axis in which trials can be told apart; worse scores are drawn at its edge."""

    low: float
    high: float
    edge: float
    """The end at which the worse scores are."""

    def clip(self, value: float) -> float:
        """A score, brought to the edge if it is beyond; one that is no number is there too."""
        return self.edge if math.isnan(value) else min(max(value, self.low), self.high)

    def holds(self, value: float) -> bool:
        """Whether a score is shown where it is."""
        return self.low <= value <= self.high

    def beyond(self, row: int) -> float:
        """Where trials without a score are drawn: in rows beyond the edge, from 1."""
        step = MARGIN * (self.high - self.low) * row
        return self.edge - step if self.edge == self.low else self.edge + step

    @property
    def range(self) -> list[float]:
        """For the axis: with a margin, and room for the rows beyond the edge."""
        margin = MARGIN * (self.high - self.low)
        room = self.beyond(ROWS + 1)
        return [min(room, self.low - margin), max(room, self.high + margin)]


def window(values: Sequence[float], direction: str) -> Window | None:
    """From the best score down to three times the median's distance, at most ten times the upper quartile's.

    None if no score is finite. A score that went astray by orders of magnitude does not change it.
    """
    sign = 1.0 if direction == "maximize" else -1.0
    gains = np.unique([sign * value for value in values if math.isfinite(value)])
    if not gains.size:
        return None
    best = float(gains[-1])
    spans = [3 * (best - float(np.quantile(gains, 0.5))), 10 * (best - float(np.quantile(gains, 0.75)))]
    worst = max(float(gains[0]), best - min(spans))
    if worst == best:
        margin = max(abs(best) * 1e-3, 1e-9)
        return Window(sign * best - margin, sign * best + margin, sign * best - sign * margin)
    low, high = sorted((sign * worst, sign * best))
    return Window(low, high, sign * worst)


@dataclass(frozen=True)
class Axis:
    """Where the values of a setting lie: numbers where they are, options side by side."""

    name: str
    is_log: bool = False
    options: list[str] = field(default_factory=list)
    """As given on the command line; empty for numbers."""

    def at(self, trial: TrialRecord) -> float | None:
        """The place of a trial; None if the setting does not count for it."""
        if self.name not in trial.params:
            return None
        value = trial.params[self.name]
        return float(self.options.index(typed(value))) if self.options else float(value)

    def spread(self, trial: TrialRecord) -> float | None:
        """The same, where trials with one option lie side by side and not upon each other."""
        place = self.at(trial)
        if place is None or not self.options:
            return place
        return place + 0.6 * ((trial.number * GOLDEN) % 1 - 0.5)


def axes(record: StudyRecord) -> dict[str, Axis]:
    """The axis of every setting that took more than one value, by its name."""
    found: dict[str, Axis] = {}
    for name in record.names:
        trials = [trial for trial in record.trials if name in trial.params]
        seen = list(dict.fromkeys(typed(trial.params[name]) for trial in trials))
        if len(seen) > 1:
            found[name] = _axis(name, trials, seen)
    return found


def _axis(name: str, trials: list[TrialRecord], seen: list[str]) -> Axis:
    text = trials[0].distributions.get(name)
    distribution: Any = json_to_distribution(text) if text else None
    if isinstance(distribution, CategoricalDistribution):
        # In the space's order; a resumed sweep cannot have others.
        options = list(dict.fromkeys([*(typed(choice) for choice in distribution.choices), *seen]))
        return Axis(name, options=options)
    numeric = all(_is_number(trial.params[name]) for trial in trials)
    return Axis(name, is_log=bool(getattr(distribution, "log", False))) if numeric else Axis(name, options=seen)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def label(text: str) -> str:
    """Text for a figure, in which nothing is taken for markup."""
    return html.escape(text, quote=False)
