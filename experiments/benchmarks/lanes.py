"""Lanes, side by side with Pyro's SVI and with NumPyro written by hand.

Three parts, all by default: ``steady`` is the time of a step once all is set up, ``cold`` the whole job of many scored
trials from a new process, ``scaling`` time and memory against lanes and dimension. Every contender has a process of
its own and one thread; they run in turn, and what counts is the ratio between them. Tables are Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from contenders import cold, figures, scaling, steady, tables
from contenders.problems import PROBLEMS, problem
from contenders.worker import HERE, NUMPYRO_PYTHON

PARTS = ("steady", "cold", "scaling")
NO_NUMPYRO = f"""NumPyro has an environment of its own, which is missing. Make it:

    python3 -m venv {NUMPYRO_PYTHON.parent.parent}
    {NUMPYRO_PYTHON.parent}/pip install -r {HERE}/contenders/requirements.txt

or leave it out: --contenders pyro,traced,compiled"""


def main() -> None:
    """Measure and print."""
    options = parsed()
    saved: dict[str, Any] = {}
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
    with data_files() as data:
        if "steady" in options.parts:
            saved["steady"] = run_steady(options, data)
        if "cold" in options.parts:
            saved["cold"] = run_cold(options)
        if "scaling" in options.parts:
            saved["scaling"] = run_scaling(options, data)
    if options.save:
        Path(options.save).write_text(json.dumps(saved, indent=1))


def run_steady(options: argparse.Namespace, data: Callable[[str], str]) -> list[dict[str, Any]]:
    """Table and figure of steady steps; all that was measured."""
    results: dict[tuple[str, str], list[dict[str, steady.Runner]]] = {}
    for dtype in options.dtype:
        for name in options.problem:
            rows = results.setdefault((name, dtype), [])
            arguments = (options.contenders, name, dtype, options.lanes, data(name), options.seconds, options.rounds)
            for runners in steady.in_turn(*arguments):
                rows.append(runners)
                told = ", ".join(f"{each.name} {each.microseconds:.3g}" for each in runners.values())
                print(f"{name}, {dtype}, µs per lane-step: {told}", flush=True)
        if options.figures:
            shown = {name: results[name, dtype] for name in options.problem}
            figures.steady(shown, options.figures / f"lanes_steady_{dtype}.png")
    print(f"\n{tables.steady(results)}\n")
    print("\n".join(tables.remarks(results)), "\n", flush=True)
    return [
        {"problem": name, "dtype": dtype, **each.record()}
        for (name, dtype), rows in results.items()
        for runners in rows
        for each in runners.values()
    ]


def run_cold(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Table of whole jobs; all that was measured."""
    small = cold.Job(trials=16, steps=200, draws=50, measured_steps=50)
    job = small if options.quick else cold.Job()
    results: list[cold.Cold] = []
    for dtype in options.dtype:
        for name in options.problem:
            for setting in options.compile:
                results.append(one := cold.measure(name, dtype, setting, job, min(3, options.rounds)))
                told = one.note or f"{one.finished} of {job.trials} finished"
                print(f"{name}, {dtype}, compile={setting}: {told}", flush=True)
    print(f"\n{job.trials} trials × {job.steps:,} steps, each scored on {job.draws:,} draws, from a cold start\n")
    print(tables.cold(results), "\n", flush=True)
    return [asdict(each) for each in results]


def run_scaling(options: argparse.Namespace, data: Callable[[str], str]) -> list[dict[str, Any]]:
    """Table and figure of time and memory; all that was measured."""
    names = [name for name in options.contenders if name != "pyro"]
    dtype = options.dtype[0]
    points: list[scaling.Point] = []
    rounds = min(3, options.rounds)
    for point in scaling.measure(names, dtype, options.sizes, options.lanes, data, options.seconds, rounds):
        points.append(point)
        told = f"{1e6 * point.seconds:.4g} µs per step, {point.memory / 2**20:.0f} MiB"
        print(f"{point.name}, D = {point.size:,}, {point.lanes:,} lanes: {told}", flush=True)
    print(f"\n{tables.scaling(points)}\n", flush=True)
    if options.figures:
        figures.scaling(points, options.figures / "lanes_scaling.png")
    return [asdict(each) for each in points]


@contextmanager
def data_files() -> Iterator[Callable[[str], str]]:
    """What writes a problem's arrays to a file of their own, for environments that lack sweepvi; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="lanes-data-") as folder:

        def write(name: str) -> str:
            path = Path(folder) / f"{name.replace(':', '_')}.npz"
            if not path.exists():
                arrays: Any = problem(name).arrays
                np.savez(path, **arrays)
            return str(path)

        yield write


def parsed() -> argparse.Namespace:
    """The command line's options, ``quick`` applied."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--problem", type=_names, default=list(PROBLEMS), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--lanes", type=_numbers, help="numbers of lanes (1,16,64,256,1024)")
    parser.add_argument("--dtype", type=_names, default=["float32"], help="float32, float64 or both, with a comma")
    parser.add_argument("--contenders", type=_names, default=list(steady.CONTENDERS), help="some of them")
    parser.add_argument("--compile", type=_names, default=["never", "auto"], help="how sweepvi runs the cold job")
    parser.add_argument("--sizes", type=_numbers, help="dimensions for scaling (10,100,1000,10000)")
    parser.add_argument("--rounds", type=int, help="blocks of each contender (5)")
    parser.add_argument("--seconds", type=float, help="length of a timed block (2)")
    parser.add_argument("--figures", type=Path, help="folder for figures; this one, unless --quick")
    parser.add_argument("--save", help="file for all that was measured, as JSON")
    parser.add_argument("--quick", action="store_true", help="make everything small, to see that it runs")
    options = parser.parse_args()
    small = {"lanes": [1, 16], "sizes": [10, 100], "rounds": 2, "seconds": 0.3, "figures": None}
    full = {"lanes": [1, 16, 64, 256, 1024], "sizes": [10, 100, 1000, 10_000], "rounds": 5, "seconds": 2.0}
    for key, value in (small if options.quick else {**full, "figures": HERE}).items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    options.parts = options.parts or list(PARTS)
    valid = {"parts": PARTS, "problem": PROBLEMS, "dtype": ("float32", "float64"), "contenders": steady.CONTENDERS}
    for key, names in valid.items():
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
