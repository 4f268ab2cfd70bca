"""Trials in Optuna's form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from sweepvi.sweep.records import COMPLETE, FAIL, RUNNING, StudyRecord, TrialRecord

NUMBER = "number"
"""The user attribute that holds a trial's number: storages count for themselves."""


def in_memory(record: StudyRecord, name: str | None = None) -> optuna.Study:
    """A study in memory, with all trials, so that its numbers are theirs."""
    with quiet():
        study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), directions=record.directions, study_name=name
        )
    study.add_trials([frozen(trial, record) for trial in record.trials])
    return study


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, Optuna says nothing below a warning."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def frozen(trial: TrialRecord, record: StudyRecord) -> FrozenTrial:
    """A trial with its parameters, rungs, values and state; the rest as user attributes.

    A trial that completed without a number is one that failed, to Optuna.
    """
    state, values = trial.state, trial.values
    if state == COMPLETE and (not values or any(map(math.isnan, values))):
        state = FAIL
    since = _began(record)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState[state],
        value=None,
        values=values if state == COMPLETE else None,
        datetime_start=since,
        datetime_complete=None if state == RUNNING else since + timedelta(seconds=trial.seconds or 0.0),
        params=trial.params,
        distributions={name: json_to_distribution(trial.distributions[name]) for name in trial.params},
        user_attrs=_attributes(trial),
        system_attrs=trial.system_attrs,
        intermediate_values={rung.resource: rung.value for rung in trial.rungs},
    )


def _began(record: StudyRecord) -> datetime:
    """When the sweep began, as Optuna has it: in local time, without saying so."""
    return datetime.fromisoformat(record.created or "2000-01-01").astimezone().replace(tzinfo=None)


def _attributes(trial: TrialRecord) -> dict[str, Any]:
    known = {key: getattr(trial, key) for key in ("value_se", "seconds", "steps", "reason", "message", "engine")}
    return {NUMBER: trial.number, **{key: value for key, value in known.items() if value not in (None, "")}}
