"""Several objectives against each other, with the Pareto front."""

from __future__ import annotations

from itertools import combinations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweepvi.sweep.best import title
from sweepvi.sweep.records import StudyRecord, TrialRecord
from sweepvi.sweep.report.marks import BLUE, RED, hover, styled
from sweepvi.sweep.report.scale import window


def pareto(record: StudyRecord) -> go.Figure | None:
    """A panel for each pair of objectives. None for a single one, or without a score."""
    pairs = list(combinations(range(len(record.objectives)), 2))
    if not pairs or not record.scored:
        return None
    front = record.pareto
    chosen = {trial.number for trial in front}
    groups = {
        "complete": ([trial for trial in record.scored if trial.number not in chosen], BLUE, "circle", 6),
        "not bettered in all at once": (front, RED, "diamond", 9),
    }
    figure = make_subplots(rows=1, cols=len(pairs), horizontal_spacing=0.08)
    for column, (one, other) in enumerate(pairs, start=1):
        for name, (trials, color, symbol, size) in groups.items():
            figure.add_scatter(
                x=_shown(record, trials, one),
                y=_shown(record, trials, other),
                text=[hover(record, trial, trial.value or 0.0) for trial in trials],
                hovertemplate="%{text}<extra></extra>",
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={"color": color, "symbol": symbol, "size": size, "opacity": 0.8},
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=title(record.objectives[one]), row=1, col=column)
        figure.update_yaxes(title_text=title(record.objectives[other]), row=1, col=column)
    return styled(figure, 460)


def _shown(record: StudyRecord, trials: list[TrialRecord], objective: int) -> list[float]:
    """Values of an objective, those far off at the edge; the front's own are always where they are."""
    known = [trial.values[objective] for trial in record.scored if trial.values]
    front = [trial.values[objective] for trial in record.pareto if trial.values]
    seen = window(known, record.directions[objective])
    assert seen is not None
    low, high = min([seen.low, *front]), max([seen.high, *front])
    return [min(max(trial.values[objective], low), high) for trial in trials if trial.values]
