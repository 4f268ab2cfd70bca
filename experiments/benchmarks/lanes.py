"""Lanes, side by side with Pyro's SVI and with NumPyro written by hand.

Three parts, all by default. ``agreement`` shows that contenders do the same; ``steady`` is the time of a step once all
is set up; ``cold`` is a whole job of many scored trials from a new process. Every contender has a process of its own
and one thread; they run in turn, and what counts is the ratio between them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from contenders import tables
from contenders.cold import Job, Jobs, cold
from contenders.problems import PROBLEMS
from contenders.steady import Blocks, Plan, agreement, steady
from contenders.worker import HERE, NUMPYRO_PYTHON

PARTS = ("agreement", "steady", "cold")
CASES = [(name, "float32") for name in PROBLEMS] + [("regression", "float64")]
NO_NUMPYRO = f"""NumPyro has an environment of its own, which is missing. Make it:

    python -m venv {NUMPYRO_PYTHON.parent.parent}
    {NUMPYRO_PYTHON.parent}/pip install -r {HERE}/requirements-numpyro.txt

or leave it out: --contenders pyro,traced"""
README = HERE / "README.md"

Kept: TypeAlias = dict[str, dict[str, Any]]
"""What was measured of a part: ``case|dtype|…`` → contender → its figures."""
Measured: TypeAlias = Iterator[tuple[str, dict[str, Blocks] | dict[str, Jobs]]]
"""The same, as it is measured."""


def main() -> None:
    """Measure, keep what was measured, and print it as tables."""
    options = parsed()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for part in options.parts:
        # Measured elsewhere, it is another table.
        name = part if options.device == "cpu" else f"{part} on {options.device}"
        kept = results.setdefault(name, {})
        for key, found in MEASURES[part](options, kept):
            # All of it anew: a ratio is of blocks that were run in turn.
            kept[key] = {contender: asdict(each) for contender, each in found.items()}
            told = ", ".join(f"{contender} {spoken(each)}" for contender, each in kept[key].items())
            print(f"{name} {key.replace('|', ' ')}: {told}", flush=True)
            save(results, options.results)
        text = f"{machine()}.\n\n{TABLES[part](options, kept)}"
        print(f"\n{text}\n", *tables.notes(kept), sep="\n", flush=True)
        if options.write:
            tables.put(README, f"lanes: {name}", text)


def measured_agreement(options: argparse.Namespace, kept: Kept) -> Measured:
    """Losses after the same steps, case by case."""
    for case, dtype in options.cases:
        key = f"{case}|{dtype}"
        if is_due(options, options.contenders, kept.get(key)):
            yield key, agreement(case, dtype, 16, 50 if options.quick else 2000, plan_of(options))


def measured_steady(options: argparse.Namespace, kept: Kept) -> Measured:
    """Blocks of steps, by case and number of lanes."""
    for case, dtype in options.cases:
        lanes = [
            each for each in options.lanes if is_due(options, options.contenders, kept.get(f"{case}|{dtype}|{each}"))
        ]
        for number, found in steady(case, dtype, lanes, plan_of(options)) if lanes else ():
            yield f"{case}|{dtype}|{number}", found


def measured_cold(options: argparse.Namespace, kept: Kept) -> Measured:
    """Whole jobs, of the cases of which something is wanted."""
    job = Job(trials=16, steps=50, draws=10) if options.quick else Job()
    # How NumPyro would go about it is a matter of taste.
    contenders = [name for name in options.contenders if name != "numpyro"]
    for case, dtype in options.cases:
        key = f"{case}|{dtype}"
        if case in tables.WHOLE_JOB and is_due(options, contenders, kept.get(key)):
            yield key, cold(case, dtype, contenders, job, min(2, options.rounds))


def is_due(options: argparse.Namespace, contenders: list[str], found: dict[str, Any] | None) -> bool:
    """Whether contenders are to be measured, of which this is kept."""
    return not options.missing or not {*contenders} <= {*(found or {})}


MEASURES = {"agreement": measured_agreement, "steady": measured_steady, "cold": measured_cold}
TABLES = {
    "agreement": lambda options, kept: tables.agreement(kept),
    "steady": lambda options, kept: tables.steady(kept, options.clock),
    "cold": lambda options, kept: tables.cold(kept),
}


def plan_of(options: argparse.Namespace) -> Plan:
    """How to measure."""
    return Plan(options.contenders, options.seconds, options.rounds, options.device)


def machine() -> str:
    """What was measured on, and with."""
    versions = [f"torch {version('torch')}", f"pyro-ppl {version('pyro-ppl')}"]
    peers = (HERE / "requirements-numpyro.txt").read_text(encoding="utf-8").splitlines()
    versions += [line.replace("==", " ") for line in peers if "==" in line]
    return f"{os.cpu_count()} {platform.machine()} CPU cores, one thread a contender; {', '.join(versions)}"


def spoken(measured: dict[str, Any]) -> str:
    """A word on progress."""
    return measured["note"] or f"{sorted(measured['wall'])[len(measured['wall']) // 2]:.3g} s"


def save(results: dict[str, Any], path: Path) -> None:
    """Keep what was measured, so that it can be gone on with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--problem", type=_names, help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--dtype", type=_names, default=["float32", "float64"], help="leave cases of the others out")
    parser.add_argument("--lanes", type=_numbers, help="1,16,64,256,1024; on a GPU 1024,4096,16384")
    parser.add_argument("--contenders", type=_names, help=f"of {', '.join(tables.CONTENDERS)}; on a GPU not numpyro")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of Pyro and sweepvi")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of a block")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="which seconds the table shows")
    parser.add_argument("--results", type=Path, default=HERE / "outputs" / "lanes.json", help="what was measured")
    parser.add_argument("--missing", action="store_true", help="measure only what the results do not have")
    parser.add_argument("--write", action="store_true", help="put the tables into the README")
    parser.add_argument("--quick", action="store_true", help="make jobs small, to see that they run")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    options.parts = options.parts or list(PARTS if on_cpu else PARTS[1:2])
    options.contenders = options.contenders or [name for name in tables.CONTENDERS if on_cpu or name != "numpyro"]
    options.lanes = options.lanes or ([1, 16, 64, 256, 1024] if on_cpu else [1024, 4096, 16384])
    options.problem = options.problem or list(PROBLEMS)
    options.cases = [each for each in CASES if each[0] in options.problem and each[1] in options.dtype]
    for key, names in {"parts": PARTS, "problem": PROBLEMS, "contenders": tables.CONTENDERS}.items():
        for unknown in set(getattr(options, key)) - set(names):
            parser.error(f"{key}: no {unknown}; valid: {', '.join(names)}")
    if "numpyro" in options.contenders and not NUMPYRO_PYTHON.exists():
        parser.error(NO_NUMPYRO)
    return options


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
