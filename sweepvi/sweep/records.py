"""What a sweep has found, read from its event log."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from sweepvi.errors import SweepviError
from sweepvi.sweep import table

if TYPE_CHECKING:
    import optuna
    import pandas as pd

LOG = "study.jsonl"
"""The event log's name in a sweep folder."""

VERSION = 1
"""The version of the event log that is read."""

Direction: TypeAlias = Literal["maximize", "minimize"]

COMPLETE, PRUNED, FAIL, RUNNING = "COMPLETE", "PRUNED", "FAIL", "RUNNING"

REASONS = {"rung": "stopped at a rung", "diverged": "diverged", "crash": "crashed", "time": "took too long"}
"""Why a trial has no score, by the word in the log."""


class Rung(NamedTuple):
    """A trial's score on its way: after ``step`` steps, which count as ``resource`` for the pruner."""

    step: int
    resource: int
    value: float
    pruned: bool = False
    """Whether it was stopped here."""


class Final(NamedTuple):
    """A score that took no part in choosing: of the same fit on fresh draws, or of a fit under another seed."""

    number: int
    role: str
    """``rescored`` or ``reseeded``."""
    seed: int
    elbo: float | None
    elbo_se: float | None
    draws: int


@dataclass
class TrialRecord:
    """One trial: what was tried and what came of it."""

    number: int
    state: str = RUNNING
    params: dict[str, Any] = field(default_factory=dict)
    """By Optuna's name."""
    distributions: dict[str, str] = field(default_factory=dict)
    """By the same names, as Optuna's JSON."""
    values: list[float] | None = None
    """One an objective; None if the trial has no score."""
    value_se: float | None = None
    """Standard error of the first of ``values``."""
    seconds: float | None = None
    steps: int | None = None
    message: str = ""
    reason: str = ""
    """A key of ``REASONS``; empty if it completed."""
    rungs: list[Rung] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    """Training loss (an estimate of -ELBO, in nats) at some of the steps."""
    finals: list[Final] = field(default_factory=list)
    engine: str = ""
    agent: str = ""
    """Who runs it, where several agents share the study."""
    system_attrs: dict[str, Any] = field(default_factory=dict)
    """What a sampler or pruner has noted on the trial."""

    @property
    def value(self) -> float | None:
        """The first of ``values``."""
        return self.values[0] if self.values else None

    @property
    def is_scored(self) -> bool:
        """Whether it completed with finite values: nothing else can win."""
        return self.state == COMPLETE and bool(self.values) and all(map(math.isfinite, self.values or ()))

    def finals_as(self, role: str) -> list[Final]:
        """Its finals of a role, those that have an ELBO."""
        return [final for final in self.finals if final.role == role and final.elbo is not None]


@dataclass
class StudyRecord:
    """A sweep: its events, folded."""

    objectives: list[str]
    directions: list[Direction]
    """One an objective."""
    identity: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    """When the sweep began, as in ISO 8601."""
    agents: list[str] = field(default_factory=list)
    """All that have joined, where several share the study."""
    scorer: str = ""
    """Which agent scores the best trials again, where several share the study."""
    sessions: list[dict[str, Any]] = field(default_factory=list)
    """When each began, with how many workers, and how busy they were, where it came to its end."""
    _trials: dict[int, TrialRecord] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, folder: str | Path) -> StudyRecord:
        """Read a sweep folder; the last line, if a crash cut it off, is left out.

        Raises ``SweepviError`` if there is no sweep, if its log is damaged, or if it is of another version.
        """
        path = Path(folder) / LOG
        if not path.is_file():
            raise SweepviError(f"{folder} holds no sweep ({LOG} is missing)")
        return cls.of(_events(path), str(path))

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]], name: str = LOG) -> StudyRecord:
        """Fold events, the study's own first.

        Raises ``SweepviError`` if that is not there, or of another version.
        """
        events = iter(events)
        first = next(events, {})
        if first.get("event") != "study":
            raise SweepviError(f"{name} is not the log of a sweep: it does not begin with the study")
        if first.get("version") != VERSION:
            raise SweepviError(
                f"{name} is of version {first.get('version')} of the log; this sweepvi reads version {VERSION}"
            )
        record = cls(
            objectives=list(first["objectives"]),
            directions=list(first["direction"]),
            **{key: first[key] for key in ("identity", "settings", "created") if key in first},
        )
        for event in events:
            record.add(event)
        return record

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one more event in; one of an unknown kind changes nothing."""
        fold = _FOLDS.get(event["event"])
        if fold is not None:
            fold(self, event)

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return list(self._trials.values())

    @property
    def finals(self) -> list[Final]:
        """The scores that took no part in choosing, by trial."""
        return [final for trial in self.trials for final in trial.finals]

    @property
    def scored(self) -> list[TrialRecord]:
        """The trials that can win, by number."""
        return [trial for trial in self.trials if trial.is_scored]

    @property
    def ranked(self) -> list[TrialRecord]:
        """The trials that can win, by the first objective, best first."""
        return sorted(self.scored, key=lambda trial: (-self._gains(trial)[0], trial.number))

    @property
    def best(self) -> TrialRecord | None:
        """The best trial, of equal ones the earliest; None without any, and with several objectives."""
        return next(iter(self.ranked), None) if len(self.objectives) == 1 else None

    @property
    def pareto(self) -> list[TrialRecord]:
        """The trials that no other betters in all objectives at once, best in the first objective first."""
        front: list[TrialRecord] = []
        # In this order, what betters a trial comes before it.
        for trial in sorted(self.scored, key=self._gains, reverse=True):
            if not any(self._dominates(other, trial) for other in front):
                front.append(trial)
        return front

    @property
    def names(self) -> list[str]:
        """The parameters that were tried, in the order in which they came up."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.params))

    def counts(self) -> dict[str, int]:
        """Trials by state: the states that there are."""
        seen = [trial.state for trial in self._trials.values()]
        return {state: seen.count(state) for state in (COMPLETE, PRUNED, FAIL, RUNNING) if state in seen}

    def reasons(self) -> dict[str, list[TrialRecord]]:
        """The trials that ended without a score, by reason, the most frequent first."""
        found: dict[str, list[TrialRecord]] = {}
        for trial in self.trials:
            if trial.state in (PRUNED, FAIL):
                found.setdefault(trial.reason or trial.state.lower(), []).append(trial)
        return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))

    def is_better(self, one: TrialRecord, other: TrialRecord) -> bool:
        """Whether a trial that can win beats another one, by the first objective."""
        return self._gains(one)[0] > self._gains(other)[0]

    def frame(self) -> pd.DataFrame:
        """All trials as a table, with the columns of ``trials.csv``."""
        import pandas as pd

        return pd.DataFrame(table.rows(self), columns=pd.Index(table.columns(self)))

    def study(self, name: str | None = None) -> optuna.Study:
        """The same as a study of Optuna's, in memory: for its plots and importances."""
        from sweepvi.sweep.frozen import in_memory

        return in_memory(self, name)

    def _gains(self, trial: TrialRecord) -> list[float]:
        """Its values, signed so that more is better."""
        signs = (1 if direction == "maximize" else -1 for direction in self.directions)
        return [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]

    def _dominates(self, one: TrialRecord, other: TrialRecord) -> bool:
        ours, theirs = self._gains(one), self._gains(other)
        return ours != theirs and all(mine >= yours for mine, yours in zip(ours, theirs, strict=True))

    def _at(self, number: int) -> TrialRecord:
        if number not in self._trials:
            last = next(reversed(self._trials), -1)
            self._trials[number] = TrialRecord(number)
            if number < last:
                self._trials = dict(sorted(self._trials.items()))
        return self._trials[number]

    def _asked(self, event: Mapping[str, Any]) -> None:
        number = event["number"]
        self._at(number)
        # A trial that a crash interrupted is asked again: what it had reached counts no more.
        self._trials[number] = TrialRecord(
            number,
            params=dict(event["params"]),
            distributions=dict(event.get("distributions", {})),
            agent=event.get("agent", ""),
        )

    def _rung(self, event: Mapping[str, Any]) -> None:
        rung = Rung(event["step"], event["resource"], _number(event["value"]), event.get("pruned", False))
        self._at(event["number"]).rungs.append(rung)

    def _ended(self, event: Mapping[str, Any]) -> None:
        trial = self._at(event["number"])
        for key in _ENDED & event.keys():
            setattr(trial, key, event[key])
        trial.values = [_number(value) for value in trial.values] if trial.values else None
        trial.curve = [(step, _number(loss)) for step, loss in event.get("curve") or ()]

    def _final(self, event: Mapping[str, Any]) -> None:
        trial = self._at(event["number"])
        final = Final(*(event[key] for key in Final._fields))
        # Scored again after a crash, it is the same score.
        trial.finals = [known for known in trial.finals if known[:3] != final[:3]] + [final]

    def _joined(self, event: Mapping[str, Any]) -> None:
        self.agents.append(event["agent"])

    def _scoring(self, event: Mapping[str, Any]) -> None:
        self.scorer = event["agent"]

    def _session(self, event: Mapping[str, Any]) -> None:
        self.sessions.append({key: value for key, value in event.items() if key != "event"})

    def _occupancy(self, event: Mapping[str, Any]) -> None:
        if self.sessions:
            self.sessions[-1].update({key: value for key, value in event.items() if key != "event"})


_ENDED = {"state", "values", "value_se", "seconds", "steps", "message", "reason", "engine", "system_attrs"}

_FOLDS = {
    "asked": StudyRecord._asked,
    "rung": StudyRecord._rung,
    "ended": StudyRecord._ended,
    "final": StudyRecord._final,
    "joined": StudyRecord._joined,
    "scoring": StudyRecord._scoring,
    "session": StudyRecord._session,
    "occupancy": StudyRecord._occupancy,
}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log, in order. What stands after the last end of a line was being written when a crash came."""
    for position, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise SweepviError(f"{os.fspath(path)} is damaged: line {position} is not an event")
        yield event
