"""Figures of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .scaling import Point
from .steady import Runner

LABELS = {"pyro": "Pyro", "numpyro": "NumPyro", "traced": "sweepvi, traced", "compiled": "sweepvi, compiled"}
COLOURS = {"pyro": "tab:gray", "numpyro": "tab:orange", "traced": "tab:cyan", "compiled": "tab:blue"}


def steady(problems: Mapping[str, Sequence[Mapping[str, Runner]]], path: Path) -> None:
    """Time per lane-step against lanes, a panel a problem."""
    figure = Figure(figsize=(3.2 * len(problems), 3.2), layout="constrained")
    panels = figure.subplots(1, len(problems), squeeze=False)[0]
    for panel, (problem, sizes) in zip(panels, problems.items(), strict=True):
        for name in dict.fromkeys(name for runners in sizes for name in runners):
            found = [runners[name] for runners in sizes if name in runners and runners[name].times]
            style: dict[str, Any] = {"label": LABELS[name], "color": COLOURS[name]}
            if name == "pyro" and found:
                # Pyro has no lanes.
                panel.axhline(found[0].microseconds, linestyle="--", **style)
            else:
                panel.plot([each.lanes for each in found], [each.microseconds for each in found], marker="o", **style)
        _logarithmic(panel, "lanes", "µs per lane-step" if panel is panels[0] else "")
        panel.set_title(problem.replace("_", " "))
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def scaling(points: Sequence[Point], path: Path) -> None:
    """Time per step against lanes and against dimension, and memory against lanes."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    by_lanes, by_size, memory = figure.subplots(1, 3)
    sizes = sorted({each.size for each in points})
    lanes = sorted({each.lanes for each in points})
    shades = mpl.colormaps["viridis"]
    for name, line in (("numpyro", ":"), ("traced", "--"), ("compiled", "-")):
        for place, size in enumerate(sizes):
            found = [each for each in points if each.name == name and each.size == size]
            style: dict[str, Any] = {"color": shades(place / len(sizes)), "linestyle": line, "marker": "."}
            label = f"{LABELS[name]}, D = {size:,}"
            by_lanes.plot([p.lanes for p in found], [1e6 * p.seconds for p in found], label=label, **style)
            memory.plot([p.lanes for p in found], [p.memory / 2**20 for p in found], **style)
        for place, number in enumerate(lanes):
            found = [each for each in points if each.name == name and each.lanes == number]
            style = {"color": shades(place / len(lanes)), "linestyle": line, "marker": "."}
            label = f"{number:,} lanes" if line == "-" else None
            by_size.plot([p.size for p in found], [1e6 * p.seconds for p in found], label=label, **style)
    _logarithmic(by_lanes, "lanes", "µs per step of all lanes")
    _logarithmic(by_size, "latent scalars D", "")
    _logarithmic(memory, "lanes", "largest resident memory, MiB")
    by_lanes.legend(fontsize="xx-small")
    by_size.legend(fontsize="x-small")
    figure.savefig(path, dpi=120)


def _logarithmic(panel: Any, x: str, y: str) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(alpha=0.3)
