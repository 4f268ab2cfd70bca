"""Figures of what happened inside trials: losses of the best, scores at rungs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sweepvi.sweep.best import figures, title
from sweepvi.sweep.records import PRUNED, StudyRecord, TrialRecord
from sweepvi.sweep.report.marks import BLUE, GREY, styled
from sweepvi.sweep.report.scale import Window, window

MOST_CURVES = 8


def losses(record: StudyRecord) -> go.Figure | None:
    """Training losses of the best trials. None if no scored trial has any."""
    chosen = record.ranked if len(record.objectives) == 1 else record.pareto
    shown = [trial for trial in chosen if len(trial.curve) > 1][:MOST_CURVES]
    if not shown:
        return None
    figure = go.Figure()
    for place, trial in enumerate(shown):
        figure.add_scatter(
            x=[step for step, _ in trial.curve],
            y=[loss for _, loss in trial.curve],
            mode="lines",
            name=f"trial {trial.number}: {title(record.objectives[0])} {figures(trial.value)}",
            line={"width": 3 if place == 0 else 1.2},
            hovertemplate=f"trial {trial.number}, step %{{x}}: %{{y:.6g}}<extra></extra>",
        )
    low, high = _limits(shown)
    figure.update_yaxes(title_text="loss (−ELBO, noisy)", range=[low, high])
    figure.update_xaxes(title_text="step")
    return styled(figure, 420)


def rungs(record: StudyRecord) -> go.Figure | None:
    """Scores on the way: a line a trial from rung to rung, the best trial's on top. None without rungs."""
    seen = _window(record)
    if seen is None:
        return None
    best, groups = record.best, {"pruned": GREY, "complete": BLUE}
    figure = go.Figure()
    for name, color in groups.items():
        trials = [trial for trial in record.trials if trial.rungs and (trial.state == PRUNED) == (name == "pruned")]
        figure.add_scatter(
            **_joined(trials, seen.clip),
            mode="lines+markers",
            name=name,
            line={"color": color, "width": 0.8},
            marker={"size": 4, "symbol": "circle-open" if name == "pruned" else "circle"},
            opacity=0.5,
        )
    if best is not None and best.rungs:
        figure.add_scatter(
            **_joined([best], seen.clip), mode="lines+markers", name="best", line={"color": "#f2c200", "width": 3}
        )
    steps = sorted({rung.step for trial in record.trials for rung in trial.rungs})
    figure.update_yaxes(title_text=f"{title(record.objectives[0])} at a rung", range=seen.range)
    # Of trials that are compared seed by seed, rungs are the fits, from 0.
    by_seed = steps[0] == 0
    figure.update_xaxes(title_text="fit of a trial" if by_seed else "step", type="linear" if by_seed else "log")
    if len(steps) <= 8:
        figure.update_xaxes(tickvals=steps, ticktext=[f"{step:,}" for step in steps])
    return styled(figure, 420)


def _window(record: StudyRecord) -> Window | None:
    """What every rung's own window needs: scores rise from rung to rung."""
    by_step: dict[int, list[float]] = {}
    for trial in record.trials:
        for rung in trial.rungs:
            by_step.setdefault(rung.step, []).append(rung.value)
    each = [seen for values in by_step.values() if (seen := window(values, record.directions[0]))]
    if not each:
        return None
    low, high = min(one.low for one in each), max(one.high for one in each)
    return Window(low, high, low if record.directions[0] == "maximize" else high)


def _joined(trials: list[TrialRecord], clip: Callable[[float], float]) -> dict[str, Any]:
    """The lines of many trials as one trace, with gaps between them."""
    x: list[Any] = []
    y: list[Any] = []
    text: list[Any] = []
    for trial in trials:
        for rung in trial.rungs:
            x.append(rung.step)
            y.append(clip(rung.value))
            text.append(f"trial {trial.number}, step {rung.step}: {figures(rung.value)}")
        for column in (x, y, text):
            column.append(None)
    return {"x": x, "y": y, "text": text, "hovertemplate": "%{text}<extra></extra>"}


def _limits(trials: list[TrialRecord]) -> tuple[float, float]:
    """What the later nine tenths of the curves need: where they end matters."""
    later = [loss for trial in trials for step, loss in trial.curve if step > 0.1 * trial.curve[-1][0]]
    finite = np.array([loss for loss in later if math.isfinite(loss)])
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(np.quantile(finite, 0.97))
    margin = 0.05 * ((high - low) or max(abs(low) * 1e-3, 1e-9))
    return low - margin, high + margin
