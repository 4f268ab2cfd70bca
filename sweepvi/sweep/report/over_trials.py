"""Figures of scores: over the trials, over each setting, over all settings at once."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepvi.sweep.best import title
from sweepvi.sweep.records import StudyRecord, TrialRecord
from sweepvi.sweep.report.marks import BLACK, marks, styled
from sweepvi.sweep.report.scale import MARGIN, Axis, label, window

COLUMNS = 3
MOST_SLICES = 12
MOST_PARALLEL = 9
MOST_LINES = 2000
"""Trials that are drawn as lines at once: the best."""


def history(record: StudyRecord) -> go.Figure | None:
    """Scores by trial, and the best so far; a row for each objective. None without a score."""
    count = len(record.objectives)
    figure = make_subplots(rows=count, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (name, direction) in enumerate(zip(record.objectives, record.directions, strict=True)):
        seen = window(_values(record, row), direction)
        if seen is None:
            return None
        best = np.maximum.accumulate if direction == "maximize" else np.minimum.accumulate
        figure.add_scatter(
            x=[trial.number for trial in record.scored],
            y=[seen.clip(value) for value in best(_values(record, row))],
            mode="lines",
            line={"color": BLACK, "width": 1.2, "shape": "hv"},
            name="best so far",
            legendgroup="best so far",
            showlegend=row == 0,
            hoverinfo="skip",
            row=row + 1,
            col=1,
        )
        for trace in marks(record, lambda trial: float(trial.number), row, seen, legend=row == 0):
            figure.add_trace(trace, row=row + 1, col=1)
        figure.update_yaxes(range=seen.range, title_text=title(name), row=row + 1, col=1)
    figure.update_xaxes(title_text="trial", row=count, col=1)
    return styled(figure, 170 + 250 * count)


def slices(record: StudyRecord, axes: list[Axis]) -> go.Figure | None:
    """The first objective's score over each setting. None without a score or without settings."""
    axes = axes[:MOST_SLICES]
    seen = window(_values(record, 0), record.directions[0])
    if seen is None or not axes:
        return None
    rows = math.ceil(len(axes) / COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=min(COLUMNS, len(axes)),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.3 / rows,
    )
    for place, axis in enumerate(axes):
        row, column = place // COLUMNS + 1, place % COLUMNS + 1
        for trace in marks(record, axis.spread, 0, seen, legend=place == 0, brief=True):
            figure.add_trace(trace, row=row, col=column)
        _set_axis(figure, axis, row, column)
    figure.update_yaxes(range=seen.range)
    figure.update_yaxes(title_text=title(record.objectives[0]), col=1)
    return styled(figure, 120 + 270 * rows)


def parallel(record: StudyRecord, axes: list[Axis]) -> go.Figure | None:
    """Every scored trial as a line through its settings, coloured by score. None for fewer than two of either."""
    axes = axes[:MOST_PARALLEL]
    trials = record.ranked[:MOST_LINES][::-1]  # the best are drawn last, on top of others
    seen = window(_values(record, 0), record.directions[0])
    if seen is None or len(axes) < 2 or len(trials) < 2:
        return None
    scores = [seen.clip(trial.values[0]) for trial in trials if trial.values]
    better_is_more = record.directions[0] == "maximize"
    name = title(record.objectives[0])
    figure = go.Figure(
        go.Parcoords(
            line={
                "color": scores,
                "cmin": seen.low,
                "cmax": seen.high,
                "colorscale": "Blues" if better_is_more else "Blues_r",
                "showscale": True,
                "colorbar": {"title": name, "thickness": 12},
            },
            dimensions=[*(_dimension(axis, trials) for axis in axes), {"label": name, "values": scores}],
            labelangle=-12,
            labelfont={"size": 11},
        )
    )
    return styled(figure, 420).update_layout(margin={"l": 80, "r": 40, "t": 90, "b": 30})


def _values(record: StudyRecord, objective: int) -> list[float]:
    return [trial.values[objective] for trial in record.scored if trial.values]


def _set_axis(figure: go.Figure, axis: Axis, row: int, column: int) -> None:
    options = {
        "title_text": label(axis.name),
        "title_standoff": 4,
        **({"type": "log", "exponentformat": "power"} if axis.is_log else {}),
    }
    if axis.options:
        options |= {"tickvals": list(range(len(axis.options))), "ticktext": [label(text) for text in axis.options]}
        options |= {"range": [-0.5, len(axis.options) - 0.5]}
    figure.update_xaxes(options, row=row, col=column)


def _dimension(axis: Axis, trials: list[TrialRecord]) -> dict[str, object]:
    """An axis of parallel coordinates. A setting that does not count for a trial is below it, at a dash."""
    places = [axis.at(trial) for trial in trials]
    known = np.array([place for place in places if place is not None], dtype=float)
    if not known.size:
        return {"label": label(axis.name), "values": [0.0] * len(trials), "tickvals": [0], "ticktext": ["–"]}
    if axis.options:
        low, high, ticks = 0.0, len(axis.options) - 1.0, list(map(float, range(len(axis.options))))
        texts = [label(text) for text in axis.options]
    else:
        known = np.log10(known) if axis.is_log else known
        low, high = float(known.min()), float(known.max())
        ticks = _ticks(low, high, axis.is_log)
        texts = [f"{10**tick if axis.is_log else tick:.3g}" for tick in ticks]
    nowhere = low - 2 * MARGIN * ((high - low) or 1.0)
    missing = len(known) < len(places)
    iterator = iter(known)
    return {
        "label": label(axis.name),
        "values": [nowhere if place is None else float(next(iterator)) for place in places],
        "range": [nowhere if missing else low, high if high > low else low + 1.0],
        "tickvals": [*([nowhere] if missing else []), *ticks],
        "ticktext": [*(["–"] if missing else []), *texts],
    }


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    """Both ends, and what lies evenly between: whole powers of ten on a logarithmic axis, if there are some."""
    whole = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)] if is_log else []
    inner = whole if len(whole) > 1 else [float(tick) for tick in np.linspace(low, high, 5)]
    gap = (high - low) / 12
    return [low, *(tick for tick in inner if low + gap < tick < high - gap), high] if high > low else [low]
