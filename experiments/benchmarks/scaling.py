"""Time of a step and memory, against lanes and against dimension.

The model is a mean with a normal prior for each of D observations: next to no arithmetic, so that what it costs is
lanes. Every point has a process of its own, which runs nothing else, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from contenders import tables
from contenders.worker import HERE, Worker, WorkerError

mpl.use("Agg")
from matplotlib import pyplot as plt

MOST = 10**7
"""Latent scalars of all lanes together, at most."""
LINES = {"traced": "--", "compiled": "-"}


@dataclass(frozen=True)
class Point:
    """A tier at a number of latent scalars (``size``, half of its parameters) and of lanes."""

    tier: str
    size: int
    lanes: int
    seconds: float
    """Of the processor, a step of all lanes: median of the rounds."""
    memory: int
    """Largest resident memory of the process, in bytes."""
    formula: int
    """What the engine reckons with for the lanes, in bytes."""


def measured(tier: str, size: int, lanes: int, seconds: float, rounds: int) -> Point:
    """One point; ``WorkerError`` where it cannot be had."""
    with Worker(tier, "float32") as worker:
        problem = {"name": f"normal_means:{size}", "dtype": "float32", "device": "cpu"}
        request = {**problem, "lanes": lanes, "tier": tier, "at_once": True}
        formula = worker.ask("start", **request)["formula"]
        reply = worker.ask("advance", steps=1)
        while reply["cpu"] < seconds / 4:
            reply = worker.ask("advance", steps=4 * reply["steps"])
        steps = max(1, round(reply["steps"] * seconds / reply["cpu"]))
        replies = [worker.ask("advance", steps=steps) for _ in range(rounds)]
    spent = statistics.median(reply["cpu"] / reply["steps"] for reply in replies)
    return Point(tier, size, lanes, spent, replies[-1]["rss"], formula)


def points(options: argparse.Namespace) -> Iterator[Point]:
    """All that are asked for and not too large."""
    for size in options.sizes:
        for lanes in options.lanes:
            for tier in options.tiers if size * lanes <= MOST else ():
                try:
                    yield measured(tier, size, lanes, options.seconds, options.rounds)
                except WorkerError as error:
                    print(f"{tier}, D = {size}, {lanes} lanes: {error}", flush=True)


def drawn(found: list[Point], path: Path) -> None:
    """Three panels: time against lanes, time against dimension, memory against lanes."""
    figure, (by_lanes, by_size, memory) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    _lines(by_lanes, found, "size", "lanes", lambda point: 1e6 * point.seconds, "D = {:,}")
    _lines(by_size, found, "lanes", "size", lambda point: 1e6 * point.seconds, "{:,} lanes")
    _lines(memory, found, "size", "lanes", lambda point: point.memory / 2**20, "D = {:,}")
    for size in sorted({point.size for point in found}):
        of_size = [point for point in found if point.size == size and point.tier == found[0].tier]
        # Against the process of the fewest lanes, as the formula is of lanes alone.
        base = of_size[0].memory - of_size[0].formula
        reckoned = [(base + point.formula) / 2**20 for point in of_size]
        memory.plot([point.lanes for point in of_size], reckoned, color="0.4", linestyle=":", linewidth=1)
    for panel, x, y in (
        (by_lanes, "lanes", "µs per step of all lanes"),
        (by_size, "latent scalars D", "µs per step of all lanes"),
        (memory, "lanes", "largest resident memory, MiB (dotted: reckoned)"),
    ):
        panel.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small", frameon=False, loc="upper left")
    figure.suptitle(", ".join(f"{tier}: {'dashed' if line == '--' else 'solid'}" for tier, line in LINES.items()))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _lines(panel: Any, found: list[Point], each: str, along: str, value: Callable[[Point], float], label: str) -> None:
    levels = sorted({getattr(point, each) for point in found})
    for place, level in enumerate(levels):
        for number, tier in enumerate(dict.fromkeys(point.tier for point in found)):
            line = sorted(
                (getattr(point, along), value(point))
                for point in found
                if getattr(point, each) == level and point.tier == tier
            )
            colour = mpl.colormaps["viridis"](place / len(levels))
            name = label.format(level) if number == 0 else None
            panel.plot(*zip(*line, strict=True), LINES[tier], marker=".", color=colour, label=name)


def table(found: list[Point]) -> str:
    """The points, as Markdown."""
    header = ["tier", "D", "lanes", "µs per step", "ns per lane and latent", "memory, MiB", "reckoned for lanes, MiB"]
    rows = [
        [
            point.tier,
            f"{point.size:,}",
            f"{point.lanes:,}",
            tables.number(1e6 * point.seconds),
            tables.number(1e9 * point.seconds / point.lanes / point.size),
            f"{point.memory / 2**20:,.0f}",
            tables.number(point.formula / 2**20),
        ]
        for point in found
    ]
    return tables.markdown(header, rows, words=1)


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiers", type=lambda text: text.split(","), default=list(LINES), help="traced,compiled")
    parser.add_argument("--sizes", type=_numbers, default=[10, 100, 1000, 10_000], help="latent scalars")
    parser.add_argument("--lanes", type=_numbers, default=[1, 4, 16, 64, 256, 1024, 4096], help="numbers of lanes")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each point")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a block")
    parser.add_argument("--figure", type=Path, default=HERE / "scaling.png", help="where to draw")
    options = parser.parse_args()
    found = []
    for point in points(options):
        found.append(point)
        print(f"{point.tier}, D = {point.size:,}, {point.lanes:,} lanes: {1e6 * point.seconds:.4g} µs", flush=True)
    drawn(found, options.figure)
    print(f"\n{table(found)}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
