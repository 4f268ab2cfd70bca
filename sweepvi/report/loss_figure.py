"""The losses of a run folder as a figure."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

WINDOW = 50
"""Steps averaged in the smoothed line."""


def draw_losses(folder: Path) -> Path:
    """Draw ``losses.csv`` of a run folder to ``loss.png``, with the ELBO of ``result.json``; returns its path."""
    # Without pyplot, so that no backend of the caller's is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with (folder / "losses.csv").open(encoding="utf-8", newline="") as file:
        losses = np.array([float(row["loss"]) for row in csv.DictReader(file)])
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
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
