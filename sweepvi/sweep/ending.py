"""How the end of a sweep is told on the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepvi import telling
from sweepvi.sweep.best import figures, score, title
from sweepvi.sweep.records import COMPLETE, FAIL, PRUNED, REASONS, RUNNING, Final, StudyRecord, TrialRecord
from sweepvi.sweep.table import typed

STATES = {COMPLETE: "complete", PRUNED: "pruned", FAIL: "failed", RUNNING: "not finished"}
MOST = 5
"""Trials of a Pareto front that are shown."""

LONGEST = 160
"""Characters of a message that are shown: the log and the table have all of it."""


def text(record: StudyRecord, folder: Path, commands: Mapping[int, str]) -> str:
    """The end of a sweep: counts, the best, what was searched in it, its scores, and the commands that come next.

    Args:
        record: The sweep.
        folder: Its folder.
        commands: How trials are run, by number, as ``best.write`` returns it.

    """
    total = len(record.trials)
    lines = [f"{total:,} trial{'s' * (total != 1)}: {counts(record)}"]
    if not record.scored:
        lines += ["no trial has a score:", *failures(record)]
    elif record.best is not None:
        lines += _best(record, record.best)
    else:
        lines += _front(record)
    lines.append(f"saved in {telling.shown(folder)}")
    if RUNNING in record.counts():
        lines.append("the same command again goes on with it")
    for number in list(commands)[:1]:
        lines.append(f"run {'the best' if record.best is not None else f'trial {number}'}: {commands[number]}")
    lines.append(f"look at it: {looking(folder, record.settings.get('storage'))}")
    return "\n".join(lines)


def counts(record: StudyRecord) -> str:
    """Trials by state, and by reason where one ended without a score: ``12 complete, 5 pruned (3 diverged, …)``."""
    parts = []
    for state, count in record.counts().items():
        inside = {reason: sum(trial.state == state for trial in trials) for reason, trials in record.reasons().items()}
        known = [f"{number:,} {REASONS[reason]}" for reason, number in inside.items() if number and reason in REASONS]
        parts.append(f"{count:,} {STATES[state]}" + (f" ({', '.join(known)})" if known else ""))
    return ", ".join(parts) or "none"


def failures(record: StudyRecord) -> list[str]:
    """A line for each reason for which trials have no score: how many, and the latest message."""
    lines = []
    for reason, trials in record.reasons().items():
        example = trials[-1]
        first = (example.message.strip().splitlines() or ["no message"])[0]
        shown = first if len(first) <= LONGEST else first[: LONGEST - 1] + "…"
        lines.append(f"  {len(trials):,} {REASONS.get(reason, reason)}; trial {example.number}: {shown}")
    return lines


def settings(trial: TrialRecord) -> list[tuple[str, str]]:
    """The searched settings of a trial, as given on the command line."""
    return [(key_of(name), _short(value)) for name, value in trial.params.items()]


def key_of(name: str) -> str:
    """The group or key of a parameter: ``optimizer.lr`` of ``optimizer.lr (adam)``, which counts for that option."""
    return name.partition(" (")[0]


def rescored(trial: TrialRecord) -> list[str]:
    """The scores of a trial that took no part in choosing it, in words."""
    lines = [f"on {final.draws:,} fresh draws {_figures(final)}" for final in trial.finals_as("rescored")]
    seeds = trial.finals_as("reseeded")
    if seeds:
        listed = ", ".join(_figures(final) for final in seeds)
        lines.append(f"under {len(seeds)} other seed{'s' * (len(seeds) > 1)} {listed}")
    return lines


def looking(folder: Path, storage: str | None = None) -> str:
    """The command that opens the sweep in optuna-dashboard; ``storage`` is as in the settings."""
    if storage is None:
        return shlex.join(["optuna-dashboard", f"sqlite:///{telling.shown(folder / 'study.db')}"])
    kind, _, rest = storage.partition(":")
    if kind == "env":
        return f'optuna-dashboard "${rest}"'
    if kind == "file":
        return f'optuna-dashboard "$(cat {shlex.quote(rest)})"'
    return shlex.join(["optuna-dashboard", rest if kind == "journal" else storage])


def _best(record: StudyRecord, best: TrialRecord) -> list[str]:
    lines = [f"best: trial {best.number}, {score(record, best)} when it was chosen"]
    again = rescored(best)
    if again:
        lines.append(f"scored again: {'; '.join(again)}")
    return lines + _aligned(settings(best))


def _front(record: StudyRecord) -> list[str]:
    front = record.pareto
    names = " and ".join(title(name) for name in record.objectives)
    lines = [f"{len(front)} trials that none betters in {names} at once:"]
    lines += [f"  trial {trial.number}: {score(record, trial)}" for trial in front[:MOST]]
    return lines + [f"  and {len(front) - MOST} more"] * (len(front) > MOST)


def _aligned(pairs: list[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in pairs]


def _figures(final: Final) -> str:
    return figures(final.elbo, final.elbo_se)


def _short(value: Any) -> str:
    """Four digits of a number: the file has them all."""
    return f"{value:.4g}" if isinstance(value, float) else typed(value)
