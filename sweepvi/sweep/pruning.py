"""Pruners by name: Optuna's, asked about a trial at a rung."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweepvi.sweep.settings import SweepSettings

STARTUP = 5
"""Trials at a rung before the median counts."""


def resource(settings: SweepSettings, rung: int) -> int:
    """What a trial has used at a rung, in units of the first: all of it is ``reduction ** rungs``."""
    return settings.reduction**rung


def rung_steps(settings: SweepSettings, steps: int) -> tuple[int, ...]:
    """The steps after which a fit of ``steps`` is at its rungs: at equal fractions for all, whatever their length.

    Schedules over the whole fit are then compared where they are equally far. None where the first would be at step 0.
    """
    found = [steps // settings.reduction ** (settings.rungs - rung) for rung in range(settings.rungs)]
    return tuple(found) if all(after > before for before, after in zip([0, *found], found, strict=False)) else ()


def chosen(settings: SweepSettings, grid: bool) -> str:
    """The name of the pruner, where the settings leave it open."""
    if len(settings.objective) > 1:
        return "none"
    if settings.pruner == "auto":
        return "none" if grid or settings.rungs == 0 else "hyperband"
    return settings.pruner


def pruner_of(name: str, settings: SweepSettings) -> BasePruner:
    """Optuna's pruner."""
    makers: dict[str, Callable[[], BasePruner]] = {
        "none": NopPruner,
        "median": _MedianOfRung,
        "hyperband": lambda: HyperbandPruner(
            min_resource=1, max_resource=resource(settings, settings.rungs), reduction_factor=settings.reduction
        ),
        "successive_halving": lambda: SuccessiveHalvingPruner(min_resource=1, reduction_factor=settings.reduction),
        "wilcoxon": lambda: WilcoxonPruner(p_threshold=0.1, n_startup_steps=2),
    }
    return makers[name]()


class _MedianOfRung(BasePruner):
    """Optuna's median pruner, among all trials that have been at the rung, whether or not they are over.

    Optuna compares with finished trials only; where hundreds run at once, that is none for long.
    """

    def __init__(self) -> None:
        self._pruner = MedianPruner(n_startup_trials=STARTUP)
        self._seen: dict[int, optuna.Study] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        value: Any = trial.intermediate_values[step]
        if step not in self._seen:
            self._seen[step] = optuna.create_study(directions=study.directions)
        others = self._seen[step]
        pruned = self._pruner.prune(others, _running(trial, step, value))
        if value == value:
            others.add_trial(create_trial(value=value, intermediate_values={step: value}, state=TrialState.COMPLETE))
        return pruned


def _running(trial: FrozenTrial, step: int, value: float) -> FrozenTrial:
    found = create_trial(value=None, intermediate_values={step: value}, state=TrialState.RUNNING)
    found.number = trial.number
    return found
