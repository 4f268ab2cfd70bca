"""Which settings matter: PED-ANOVA.

Watanabe, Bansal & Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary subspaces", 2023,
arXiv:2304.10255; with conditional settings as in arXiv:2601.20800.
"""

from __future__ import annotations

import warnings

import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator

from sweepvi.sweep.records import StudyRecord
from sweepvi.sweep.report.marks import BLUE, styled
from sweepvi.sweep.report.scale import Axis, label

FEWEST = 10
"""Scored trials below which nothing is said: the best tenth of them is compared with all."""


def importances(record: StudyRecord, axes: dict[str, Axis]) -> dict[str, float]:
    """How much each setting, of those that took several values, has to do with being among the best tenth.

    The shares sum to 1, the largest first. Empty if there are too few scored trials, or no differences.
    """
    if len(record.scored) < FEWEST or not axes:
        return {}
    with warnings.catch_warnings():
        # What it would warn of is in the caption.
        warnings.simplefilter("ignore")
        found = PedAnovaImportanceEvaluator().evaluate(record.study())
    known = {name: value for name, value in found.items() if name in axes}
    total = sum(known.values())
    ranked = sorted(known, key=lambda name: -known[name])
    return {name: known[name] / total for name in ranked} if total > 0 else {}


def bars(shares: dict[str, float]) -> go.Figure | None:
    """The shares as bars, the largest on top. None if there are none."""
    if not shares:
        return None
    names = list(shares)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[shares[name] for name in names],
            y=[label(name) for name in names],
            orientation="h",
            marker_color=BLUE,
            text=[f"{shares[name]:.0%}" for name in names],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title_text="share", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    return styled(figure, 110 + 30 * len(names))
