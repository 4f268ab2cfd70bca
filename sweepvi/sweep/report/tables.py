"""Tables of the report, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from sweepvi.sweep.best import figures, title
from sweepvi.sweep.ending import key_of, settings
from sweepvi.sweep.live import duration
from sweepvi.sweep.records import REASONS, StudyRecord, TrialRecord

MOST_BEST = 10
MOST_KINDS = 12
LONGEST = 300
"""Characters of a message."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are text, not markup."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def searched(record: StudyRecord) -> str:
    """The space, as it was given, or else as the trials show it."""
    space = record.identity.get("space")
    if not isinstance(space, Mapping) or not space:
        seen = {
            name: {str(trial.params[name]) for trial in record.trials if name in trial.params} for name in record.names
        }
        space = {name: f"{len(values)} values" for name, values in seen.items()}
    return table(["searched", "among"], [[str(name), _among(what)] for name, what in space.items()])


def chosen(record: StudyRecord) -> str:
    """The best trials, or those of the Pareto front: scores when they were chosen and afterwards, and settings."""
    single = len(record.objectives) == 1
    trials = record.ranked[:MOST_BEST] if single else record.pareto
    again = any(trial.finals for trial in trials)
    scores = [f"{title(name)} when chosen" if single else title(name) for name in record.objectives]
    finals = ["on fresh draws", "under new seeds"] if again else []
    names = list(dict.fromkeys(key_of(name) for trial in trials for name in trial.params))
    return table(["trial", *scores, *finals, "seconds", *names], [_row(trial, names, again) for trial in trials])


def failures(record: StudyRecord) -> str:
    """What ended without a score: reason, how often, and an example; messages that differ in numbers are one kind."""
    kinds: dict[tuple[str, str], list[TrialRecord]] = {}
    for reason, trials in record.reasons().items():
        for trial in trials:
            kinds.setdefault((reason, re.sub(r"[-+]?\d[\d.,e+-]*", "#", trial.message)), []).append(trial)
    ranked = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    rows = [
        [
            REASONS.get(reason, reason),
            f"{len(trials):,}",
            str(trials[0].number),
            _cut(trials[0].message),
            ", ".join(f"{name}={value}" for name, value in settings(trials[0])),
        ]
        for (reason, _), trials in ranked[:MOST_KINDS]
    ]
    left = len(ranked) - MOST_KINDS
    more = f"<p>And {left} more kinds of messages: they are in trials.csv.</p>" if left > 0 else ""
    return table(["reason", "trials", "for example", "message", "its settings"], rows) + more


def sessions(record: StudyRecord) -> str:
    """When it ran, with how many workers, and where the time went."""
    header = ["session", "workers", "lanes busy", "proposing trials", "computing"]
    rows = [
        [
            str(session.get("started", "")),
            str(session.get("workers", "")),
            _share(session.get("lanes_busy")),
            _seconds(session.get("sampler_seconds")),
            _seconds(session.get("computing_seconds")),
        ]
        for session in record.sessions
    ]
    return table(header, rows) if rows else ""


def _row(trial: TrialRecord, names: Sequence[str], again: bool) -> list[str]:
    errors = [trial.value_se, *(None for _ in trial.values or ())]
    scores = [figures(value, error) for value, error in zip(trial.values or (), errors, strict=False)]
    known = dict(settings(trial))
    finals = [", ".join(figures(final.elbo, final.elbo_se) for final in trial.finals_as(role)) for role in _ROLES]
    seconds = "" if trial.seconds is None else f"{trial.seconds:.3g}"
    return [str(trial.number), *scores, *(finals if again else []), seconds, *(known.get(name, "–") for name in names)]


_ROLES = ("rescored", "reseeded")


def _among(what: Any) -> str:
    return ", ".join(map(str, what)) if isinstance(what, list | tuple) else str(what)


def _cut(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else duration(value) if value >= 10 else f"{value:.1f} s"
