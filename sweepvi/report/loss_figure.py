"""The losses of a run folder as a figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 50
"""Steps averaged in the smoothed line."""


def draw_losses(folder: Path) -> Path:
    """Draw ``losses.csv`` of a run folder to ``loss.png``, with the ELBO of ``result.json``; returns its path.

    Step sizes are drawn below the losses, if they change or differ between groups of parameters.
    """
    # Without pyplot, so that no backend of the caller's is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    losses, rates = _read(folder / "losses.csv")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    changing = len(rates) > 1 or any(len(np.unique(rate[np.isfinite(rate)])) > 1 for rate in rates.values())
    figure = Figure(figsize=(7, 5.5 if changing else 4), layout="constrained")
    FigureCanvasAgg(figure)
    if changing:
        axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
        _draw_rates(below, rates)
        axes.set_ylabel("-ELBO (nats)")
    else:
        axes = figure.add_subplot(xlabel="step", ylabel="-ELBO (nats)")
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="0.8", linewidth=0.7, label="each step")
    if len(losses) >= 2 * WINDOW:
        smooth = np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")
        axes.plot(steps[WINDOW - 1 :], smooth, color="C0", label=f"average of {WINDOW}")
    if result["elbo"] is not None:
        axes.axhline(-result["elbo"], color="C1", linestyle="--", label="finished fit, fresh draws")
    axes.set_title(f"{result['status']}: {_elbo(result)}", fontsize=10)
    low, high = _limits(losses)
    if low < high:
        axes.set_ylim(low, high)
    axes.legend(frameon=False)
    path = folder / "loss.png"
    figure.savefig(path, dpi=120)
    return path


def _read(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses, and step sizes by the name of their column."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    names = [name for name in reader.fieldnames or () if name not in ("step", "loss")]
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("loss", *names)}
    return columns.pop("loss"), columns


def _draw_rates(axes: Any, rates: dict[str, np.ndarray]) -> None:
    for name, rate in rates.items():
        axes.plot(np.arange(1, len(rate) + 1), rate, label=name.removeprefix("lr_"), linewidth=1.2)
    if len(rates) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("step")
    axes.set_ylabel("step size")


def _elbo(result: dict[str, float | None]) -> str:
    if result["elbo"] is None:
        return f"{result['steps']} steps"
    return f"ELBO {result['elbo']:.2f}" + (f" ± {result['elbo_se']:.2f}" if result["elbo_se"] is not None else "")


def _limits(losses: np.ndarray) -> tuple[float, float]:
    """Vertical limits that leave out the first steps' heights: what matters is where the curve ends."""
    finite = losses[np.isfinite(losses)]
    if finite.size == 0:
        return 0.0, 0.0
    low, high = float(finite.min()), float(np.quantile(finite, 0.97))
    margin = 0.05 * (high - low)
    return low - margin, high + margin
