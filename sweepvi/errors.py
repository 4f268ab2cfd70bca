"""What can go wrong, and how it is said."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: the key, its value, and what would be valid."""

    key: str
    message: str
    value: object = None
    has_value: bool = False

    @classmethod
    def of(cls, key: str, value: object, message: str) -> Problem:
        """Make a problem that shows the offending value."""
        return cls(key, message, value, True)

    def __str__(self) -> str:
        shown = f"{self.key} = {self.value!r}" if self.has_value else self.key
        return f"{shown}: {self.message}"


class SweepviError(Exception):
    """Base of every error that sweepvi raises on purpose."""


class ConfigError(SweepviError, ValueError):
    """A configuration that cannot be run; carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        count = len(self.problems)
        if count == 1:
            return str(self.problems[0])
        return "\n".join([f"{count} problems:", *(f"  - {problem}" for problem in self.problems)])


class CheckpointError(SweepviError, RuntimeError):
    """A checkpoint that is missing, half-written, or of another fit."""


class DivergedError(SweepviError, FloatingPointError):
    """A non-finite loss, gradient or parameter, under ``engine.on_nonfinite=raise``; ``result`` is the fit's."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def raise_if(problems: Sequence[Problem]) -> None:
    """Raise :class:`ConfigError` with all ``problems``, if there are any."""
    if problems:
        raise ConfigError(problems)


def unique(problems: Iterable[Problem]) -> list[Problem]:
    """The problems without those that say the same again."""
    return list({str(problem): problem for problem in problems}.values())


def collected(*tasks: Callable[[], Any]) -> tuple[list[Any], list[Problem]]:
    """Run every task; returns what each returned, None for one that failed, and the problems of all that failed."""
    results, problems = [], []
    for task in tasks:
        try:
            results.append(task())
        except ConfigError as error:
            results.append(None)
            problems += error.problems
    return results, problems


def listed(names: Iterable[str]) -> str:
    """Join names for a message: ``a, b, c``."""
    return ", ".join(names)


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` is no ``what``: the nearest names first, then all that are valid."""
    by_fold = {entry.casefold(): entry for entry in sorted(known)}
    known = by_fold.values()
    near = [by_fold[fold] for fold in difflib.get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"no such {what}; {hint}valid: {listed(known) or '(none)'}"
