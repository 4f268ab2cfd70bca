"""Many trials into a database at once.

Optuna's own ``add_trials`` makes a transaction of each trial, and a query of each parameter and attribute, which takes
12 ms a trial. The rows are the same here, in one transaction; they are made of Optuna's own table classes, which are no
public part of it. A test compares what either way has written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial


def append(storage: RDBStorage, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Add finished trials to a study, all of them or none."""
    study_id = study._study_id
    try:
        with storage.scoped_session().begin() as transaction:
            session = transaction.session
            # For the numbers' sake, nobody else may add trials meanwhile.
            models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
            count = session.query(models.TrialModel).filter_by(study_id=study_id).count()
            rows = [_row(study_id, number, trial) for number, trial in enumerate(trials, start=count)]
            session.add_all(rows)
            # The other rows refer to the keys that these are given.
            session.flush()
            for row, trial in zip(rows, trials, strict=True):
                session.add_all(_details(row.trial_id, trial))
    finally:
        storage.remove_session()


def _row(study_id: int, number: int, trial: FrozenTrial) -> Any:
    return models.TrialModel(
        study_id=study_id,
        number=number,
        state=trial.state,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
    )


def _details(trial_id: int, trial: FrozenTrial) -> Iterator[Any]:
    for objective, value in enumerate(trial.values or ()):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield models.TrialValueModel(trial_id=trial_id, objective=objective, value=stored, value_type=kind)
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        yield models.TrialParamModel(
            trial_id=trial_id,
            param_name=name,
            param_value=distribution.to_internal_repr(value),
            distribution_json=distribution_to_json(distribution),
        )
    for step, value in trial.intermediate_values.items():
        model = models.TrialIntermediateValueModel
        stored, kind = model.intermediate_value_to_stored_repr(value)
        yield model(trial_id=trial_id, step=step, intermediate_value=stored, intermediate_value_type=kind)
    for model, attributes in (
        (models.TrialUserAttributeModel, trial.user_attrs),
        (models.TrialSystemAttributeModel, trial.system_attrs),
    ):
        for key, value in attributes.items():
            yield model(trial_id=trial_id, key=key, value_json=json.dumps(value))
