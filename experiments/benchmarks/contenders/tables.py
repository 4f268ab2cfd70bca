"""Results as tables of Markdown, ready for the README."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from .cold import Cold
from .scaling import Point
from .steady import Runner, ratios

DASH = "–"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table; the first ``words`` columns to the left, numbers to the right."""
    lines = [header, ["---"] * words + ["--:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def steady(results: Mapping[tuple[str, str], Sequence[Mapping[str, Runner]]]) -> str:
    """µs per lane-step, and ratios with their ranges over the rounds; results by problem and dtype."""
    header = ["problem", "dtype", "lanes", "Pyro", "NumPyro", "traced", "compiled"]
    header += ["traced × Pyro", "compiled × Pyro", "traced × NumPyro", "compiled × NumPyro"]
    rows = [
        [
            problem,
            dtype,
            f"{max(each.lanes for each in runners.values()):,}",
            *(_time(runners.get(name)) for name in ("pyro", "numpyro", "traced", "compiled")),
            *(_ratio(runners, peer, own) for peer in ("pyro", "numpyro") for own in ("traced", "compiled")),
        ]
        for (problem, dtype), sizes in results.items()
        for runners in sizes
    ]
    return markdown(header, rows, words=2)


def remarks(results: Mapping[tuple[str, str], Sequence[Mapping[str, Runner]]]) -> Iterator[str]:
    """The last losses, which show that contenders do the same work, and what each noted."""
    for (problem, dtype), sizes in results.items():
        for runners in sizes:
            for each in runners.values():
                note = f" ({each.note})" if each.note else ""
                yield f"{problem}, {dtype}, {each.name} × {each.lanes:,}: -ELBO {each.loss:,.1f} at {each.many:,}{note}"


def cold(results: Sequence[Cold]) -> str:
    """Seconds of the whole job from a cold start."""
    header = ["problem", "dtype", "compile", "Pyro, extrapolated, s", "sweepvi, s", "× Pyro", "best ELBO"]
    rows = [
        [
            each.problem,
            each.dtype,
            each.compile,
            _number(statistics.median(each.pyro)) if each.pyro else DASH,
            _number(statistics.median(each.sweepvi)) if each.sweepvi else DASH,
            _spread([peer / own for peer, own in zip(each.pyro, each.sweepvi, strict=False)]),
            f"{each.best:,.1f}",
        ]
        for each in results
    ]
    return markdown(header, rows, words=3)


def scaling(points: Sequence[Point]) -> str:
    """µs per step, and the largest memory, by contender, dimension and lanes."""
    header = ["contender", "D", "lanes", "µs per step", "ns per lane and latent", "memory, MiB"]
    rows = [
        [
            each.name,
            f"{each.size:,}",
            f"{each.lanes:,}",
            _number(1e6 * each.seconds),
            _number(1e9 * each.seconds / each.lanes / each.size),
            f"{each.memory / 2**20:,.0f}",
        ]
        for each in points
    ]
    return markdown(header, rows)


def _time(runner: Runner | None) -> str:
    return DASH if runner is None else _number(runner.microseconds)


def _ratio(runners: Mapping[str, Runner], peer: str, own: str) -> str:
    if peer not in runners or own not in runners:
        return DASH
    return _spread(ratios(runners[peer], runners[own]))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return DASH
    return f"{_number(statistics.median(values))} ({_number(min(values))}–{_number(max(values))})"


def _number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
