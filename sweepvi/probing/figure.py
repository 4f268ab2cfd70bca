"""A probe as a figure: noise, time and their product, a line for each row of the table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from sweepvi.probing.ranking import Block, blocks
from sweepvi.probing.row import Row

COLUMNS = ("variance", "ms per gradient", "variance × seconds")
BEST, OTHER = "C1", "C0"


def drawn(rows: Sequence[Row], place: str) -> bytes:
    """The figure as PNG: a band for each objective that several rows have, best first; logarithmic axes.

    Numbers that are zero or missing have no mark.
    """
    # Without pyplot, so that no backend of the caller's is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = blocks(rows)
    bands = [block for block in found if len(block.rows) > 1] or found[:1]
    heights = [len(block.rows) + 3 for block in bands]
    figure = Figure(figsize=(10, 0.7 + 0.27 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(bands), len(COLUMNS), squeeze=False, sharey="row", height_ratios=heights)
    for axes, block in zip(panels, bands, strict=True):
        _draw_band(axes, block)
    figure.suptitle(f"gradients {place}; least variance × seconds in orange", fontsize=11)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _draw_band(panels: Sequence[Any], block: Block) -> None:
    errors = [row.total.variance_se if row.total else None for row in block.rows]
    for axes, name, values in zip(panels, COLUMNS, zip(*map(_values, block.rows), strict=True), strict=True):
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlabel(name)
        _set_scale(axes, [value for value in values if _has_mark(value)])
        for place, (row, value, error) in enumerate(zip(block.rows, values, errors, strict=True)):
            if _has_mark(value):
                color = BEST if row is block.best else OTHER
                width = error if name == COLUMNS[0] else None
                fill = color if row.unbiased else "white"
                axes.errorbar(value, place, xerr=width, fmt="o", color=color, markerfacecolor=fill)
    first = panels[0]
    first.set_yticks(range(len(block.rows)), [_label(row) for row in block.rows])
    first.set_ylim(len(block.rows) - 0.4, -0.6)
    # The title may be as long as all three panels; it is not to make room for itself in the first.
    first.set_title(block.words, fontsize=10, loc="left").set_in_layout(False)


def _set_scale(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis around the values; with numbers between the powers of ten, if these are too few to read."""
    from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    between = _between_powers(min(values), max(values)) if values else ()
    if between:
        axes.set_xlim(min(values) / 1.5, max(values) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, *between)))
        axes.xaxis.set_major_formatter(LogFormatter(minor_thresholds=(math.inf, math.inf)))
        axes.tick_params(axis="x", labelsize=8)


def _between_powers(least: float, most: float) -> tuple[int, ...]:
    """The multiples of a power of ten that are marked, too: fewer of the numbers that take much room (``5e+06``)."""
    spread, is_short = most / least, least >= 1e-3 and most < 1e5
    if spread >= (100 if is_short else 10):
        return ()
    if spread >= 3:
        return (2, 5) if is_short else (3,)
    return (2, 3, 5, 7) if is_short else (2, 5)


def _has_mark(value: float | None) -> bool:
    return value is not None and value > 0 and math.isfinite(value)


def _values(row: Row) -> tuple[float | None, float | None, float | None]:
    variance = row.total.variance if row.total else None
    return variance, row.seconds and 1000 * row.seconds, row.cost


def _label(row: Row) -> str:
    return f"{row.estimator} × {row.particles}{'' if row.unbiased else ' (biased)'}"
