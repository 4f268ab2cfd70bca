"""Results as tables of Markdown, with what is wanted of them."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DASH = "–"
Entries = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""``case|dtype|…`` → contender → what was measured."""

LANES_OF_PYRO = {
    ("eight_schools", "float32"): 5000,
    ("radon", "float32"): 500,
    ("regression", "float32"): 100,
    ("regression", "float64"): 70,
}
HOW = {"traced": "compile=never", "compiled": "compile=auto"}
"""How sweepvi runs a whole job."""
WHOLE_JOB = {"eight_schools": 150, "radon": 80}


def wanted(peer: str, case: str, dtype: str, lanes: int) -> float | None:
    """How many times as fast as a peer sweepvi is to be; None where nothing is said."""
    if peer == "numpyro":
        return 0.5 if lanes == 1 else 1.0 if lanes >= 64 else None
    if lanes == 1:
        return 5.0 if case == "digits_vae" else 20.0
    return LANES_OF_PYRO.get((case, dtype)) if lanes == 256 else None


def steady(entries: Entries, clock: str) -> str:
    """µs per lane-step by a clock, ``wall`` or ``cpu``; ratios of the compiled tier where there is one."""
    header = ["problem", "type", "lanes", "Pyro", "NumPyro", "traced", "compiled"]
    header += ["× Pyro", "wanted", "× NumPyro", "wanted"]
    rows = []
    cases = list(dict.fromkeys(key.rpartition("|")[0] for key in entries))
    # Together and by lanes, in whatever order they were measured.
    for key in sorted(entries, key=lambda key: (cases.index(key.rpartition("|")[0]), int(key.rpartition("|")[2]))):
        found = entries[key]
        case, dtype, lanes = key.split("|")
        times = {name: each[clock] for name, each in found.items() if each[clock]}
        row = [case, dtype, f"{int(lanes):,}"]
        row += [_median([1e6 * each for each in times.get(name, [])]) for name in CONTENDERS]
        own = times.get("compiled") or times.get("traced", [])
        for peer in ("pyro", "numpyro"):
            row += _compared(times.get(peer, []), own, wanted(peer, case, dtype, int(lanes)))
        rows.append(row)
    return markdown(header, rows, words=2)


CONTENDERS = ("pyro", "numpyro", "traced", "compiled")


def cold(entries: Entries) -> str:
    """Seconds of the whole job from a cold start."""
    header = ["problem", "type", "sweepvi", "Pyro, extrapolated, s", "sweepvi, s", "× Pyro", "wanted", "best ELBO"]
    rows = []
    for key, found in entries.items():
        case, dtype = key.split("|")
        pyro = found.get("pyro", {}).get("wall", [])
        for name, own in found.items():
            if name != "pyro":
                compared = _compared(pyro, own["wall"], WHOLE_JOB.get(case))
                best = DASH if own["best"] is None else f"{own['best']:,.1f}"
                rows.append([case, dtype, HOW[name], _median(pyro), _median(own["wall"]), *compared, best])
    return markdown(header, rows, words=3)


def agreement(entries: Entries) -> str:
    """Losses after the same number of steps."""
    rows = [[*key.split("|"), *(_loss(found.get(name)) for name in CONTENDERS)] for key, found in entries.items()]
    return markdown(["problem", "type", "Pyro", "NumPyro", "traced", "compiled"], rows, words=2)


def notes(entries: Entries) -> list[str]:
    """Whatever went wrong."""
    return [
        f"{key}, {name}: {each['note']}" for key, own in entries.items() for name, each in own.items() if each["note"]
    ]


def put(page: Path, name: str, text: str) -> None:
    """Replace what is between the page's markers of a name; ``ValueError`` if it has none."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found = page.read_text(encoding="utf-8")
    if begin not in found or end not in found:
        raise ValueError(f"{page} has no markers {begin} … {end}")
    pattern = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    page.write_text(pattern.sub(lambda _: f"\n\n{text}\n\n", found), encoding="utf-8")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table; the first ``words`` columns to the left, numbers to the right."""
    lines = [header, ["---"] * words + ["--:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _compared(peer: Sequence[float], own: Sequence[float], target: float | None) -> list[str]:
    """Ratio with its range over the rounds, and what is wanted of it."""
    ratios = [other / mine for other, mine in zip(peer, own, strict=False)]
    if not ratios:
        return [DASH, "" if target is None else f"{target:,g}"]
    middle = statistics.median(ratios)
    told = f"{number(middle)} ({number(min(ratios))}–{number(max(ratios))})"
    return [told, "" if target is None else f"{target:,g} {'✓' if middle >= target else '✗'}"]


def _loss(found: Mapping[str, Any] | None) -> str:
    return DASH if found is None or found["note"] else f"{found['loss']:,.1f}"


def _median(values: Sequence[float]) -> str:
    return number(statistics.median(values)) if values else DASH


def number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
