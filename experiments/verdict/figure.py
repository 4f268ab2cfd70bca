"""The figure: how far each fit is off, against its k-hat, in the colour of its trust."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fits import OFF, Line
from matplotlib.figure import Figure
from measures import BIAS

COLOURS = {"no": "#d62728", "caution": "#ff9e1b", "yes": "#1f77b4"}
LARGEST_K, LARGEST_BIAS, LEAST_BIAS = 2.0, 1e3, 1e-2


def draw(lines: Sequence[Line], path: Path) -> None:
    """Write it; what is farther off is drawn at the edge, fits without a k-hat are left out."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for trust, colour in COLOURS.items():
        own = [line for line in lines if line.trust == trust and not math.isnan(line.k_hat)]
        k_hats = [min(line.k_hat, LARGEST_K) for line in own]
        biases = [min(max(line.bias, LEAST_BIAS), LARGEST_BIAS) for line in own]
        axes.scatter(k_hats, biases, s=14, alpha=0.7, color=colour, label=f"{trust} ({len(own)})", linewidths=0)
    for level in (BIAS, OFF):
        axes.axhline(level, color="grey", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="k-hat", ylabel="largest |bias| of a reported mean, in sd")
    axes.legend(title="trust", frameon=False)
    figure.savefig(path, dpi=150)
