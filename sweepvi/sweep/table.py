"""All trials of a sweep as a table: ``trials.csv``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.files import write_atomically

if TYPE_CHECKING:
    from sweepvi.sweep.records import StudyRecord

TABLE = "trials.csv"


def columns(record: StudyRecord) -> list[str]:
    """The names of the columns: what every trial has, then a column for each parameter.

    With several objectives there is a ``value_NAME`` for each in place of ``value``.
    """
    single = len(record.objectives) == 1
    values = ["value"] if single else [f"value_{name}" for name in record.objectives]
    return ["number", "state", *values, "value_se", "seconds", "steps", "reason", "message", *record.names]


def rows(record: StudyRecord, missing: Any = None) -> list[list[Any]]:
    """A row for each trial, by number; ``missing`` where a trial has no such value or parameter."""
    names, nothing = record.names, [missing] * len(record.objectives)
    return [
        [
            *(trial.number, trial.state, *(trial.values or nothing)),
            *(missing if value is None else value for value in (trial.value_se, trial.seconds, trial.steps)),
            *(trial.reason, trial.message, *(trial.params.get(name, missing) for name in names)),
        ]
        for trial in record.trials
    ]


def text(record: StudyRecord) -> str:
    """The table as CSV. Numbers read back to the last bit; what a trial does not have is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns(record))
    writer.writerows([[typed(value) for value in row] for row in rows(record, missing="")])
    return out.getvalue()


def write(record: StudyRecord, folder: Path) -> Path:
    """Write ``trials.csv``, in one piece; returns its path."""
    path = folder / TABLE
    write_atomically(path, text(record))
    return path


def typed(value: Any) -> str:
    """A value as it would be given on the command line: ``true``, ``null``, ``0.1``, ``adam``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)
