"""Trials as marks: what each state looks like, in every figure the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from sweepvi.sweep.best import figures, title
from sweepvi.sweep.ending import settings
from sweepvi.sweep.records import FAIL, PRUNED, StudyRecord, TrialRecord
from sweepvi.sweep.report.scale import Window, label

BLUE, GREY, ORANGE, RED, BLACK = "#3b6ea8", "#9aa0a6", "#d9822b", "#c0392b", "#111111"

Place = Callable[[TrialRecord], float | None]


def marks(
    record: StudyRecord, place: Place, objective: int, window: Window, *, legend: bool = True, brief: bool = False
) -> list[Any]:
    """The trials of a record over something, as traces: complete, beyond the axis, pruned, diverged, failed, best.

    Args:
        record: The sweep.
        place: Where a trial lies on the horizontal axis; None if nowhere.
        objective: Which of the objectives is the vertical axis.
        window: What the vertical axis shows.
        legend: Whether the traces are in the legend.
        brief: Whether a trial that is pointed at tells its score only, not its settings.

    """
    groups: dict[str, list[tuple[TrialRecord, float]]] = {name: [] for name in LOOKS}
    best = record.best
    for trial in record.trials:
        kind, value = _kind(trial, objective, window)
        if kind and place(trial) is not None:
            groups["best" if trial is best else kind].append((trial, value))
    return [
        go.Scatter(
            x=[place(trial) for trial, _ in group],
            y=[window.beyond(BELOW[name]) if name in BELOW else window.clip(value) for _, value in group],
            text=[hover(record, trial, value, brief) for trial, value in group],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=legend,
            marker=_marker(name, window),
        )
        for name, group in groups.items()
        if group
    ]


BEYOND = "complete, beyond the axis"

LOOKS: dict[str, dict[str, Any]] = {
    "pruned, at its last rung": {"color": GREY, "symbol": "circle-open", "size": 6, "opacity": 0.7},
    "complete": {"color": BLUE, "symbol": "circle", "size": 6, "opacity": 0.7},
    BEYOND: {"color": BLUE, "symbol": "triangle-down-open", "size": 8},
    "diverged": {"color": ORANGE, "symbol": "x-thin-open", "size": 7},
    "failed": {"color": RED, "symbol": "cross-open", "size": 8},
    "best": {"color": "#f2c200", "symbol": "star", "size": 15, "line": {"color": BLACK, "width": 1}},
}

BELOW = {"diverged": 1, "failed": 2}
"""The rows beyond the axis of trials that have no score."""


def _marker(name: str, window: Window) -> dict[str, Any]:
    upwards = name == BEYOND and window.edge == window.high
    return LOOKS[name] | ({"symbol": "triangle-up-open"} if upwards else {})


def _kind(trial: TrialRecord, objective: int, window: Window) -> tuple[str, float]:
    """What a trial is drawn as, and its score; no kind if it is not drawn."""
    if trial.is_scored and trial.values:
        value = trial.values[objective]
        return "complete" if window.holds(value) else BEYOND, value
    if trial.reason == "diverged":
        return "diverged", math.nan
    if trial.state == PRUNED:
        return "pruned, at its last rung", trial.rungs[-1].value if trial.rungs else math.nan
    return ("failed", math.nan) if trial.state == FAIL else ("", math.nan)


def hover(record: StudyRecord, trial: TrialRecord, value: float, brief: bool = False) -> str:
    """What is said of a trial that is pointed at: its number, score and fate, and its settings unless ``brief``."""
    error = f" ± {figures(trial.value_se)}" if trial.is_scored and trial.value_se is not None else ""
    reached = "" if math.isnan(value) else f"{title(record.objectives[0])} {figures(value)}{error}"
    if trial.is_scored and len(record.objectives) > 1:
        reached = ", ".join(
            f"{title(name)} {figures(each)}" for name, each in zip(record.objectives, trial.values or (), strict=True)
        )
    if brief:
        return label(f"trial {trial.number}: {reached or trial.reason or trial.state.lower()}")
    fate = trial.message.strip().splitlines()[0][:120] if trial.message.strip() else ""
    lines = [f"trial {trial.number}", reached, fate, *(f"{name} = {value}" for name, value in settings(trial))]
    return "<br>".join(label(line) for line in lines if line)


def styled(figure: go.Figure, height: int) -> go.Figure:
    """A figure in the page's style."""
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 70, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0},
        hoverlabel={"align": "left"},
    )
    return figure
