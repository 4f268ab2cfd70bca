"""Whether the means of estimators of the same gradient agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from sweepvi.probing.row import Disagreement, Row

LIMIT = 5.0
"""Standard errors beyond chance: a normal number is that far out once in two million, and the norm of a vector of them
over its own standard error is so even less often."""

FEWEST = 30
"""With fewer draws, means are not normal enough to be compared."""

ROUNDING = 1e-5
"""Differences of this part of the largest gradient are rounding, not bias."""


def compared(rows: Sequence[Row], draws: int) -> list[Row]:
    """The rows of one objective, each with its distance from the most precise one that says it is unbiased."""
    measured = [row for row in rows if row.total is not None]
    trusted = [row for row in measured if row.unbiased]
    if not trusted or draws < FEWEST:
        return list(rows)
    # Where two estimators are the same, names decide, and not the clocks.
    reference = min(trusted, key=lambda row: (row.total.variance if row.total else math.inf, row.words))
    return [
        row
        if row.total is None or row is reference
        else replace(row, disagreement=_disagreement(row, reference, measured))
        for row in rows
    ]


def _disagreement(row: Row, reference: Row, measured: Sequence[Row]) -> Disagreement | None:
    distances = {name: _distance(name, row, reference, measured) for name in {**reference.tensors, **row.tensors}}
    if not distances:
        return None
    name = max(distances, key=lambda name: distances[name])
    return Disagreement(distances[name], name, reference.words, distances[name] > LIMIT)


def _distance(name: str, row: Row, reference: Row, measured: Sequence[Row]) -> float:
    """Norm of the difference of two means of a parameter's gradient, in standard errors.

    Where nothing depended on the parameter, its gradient has been zero.
    """
    ours, theirs = (each.tensors[name].standard_error if name in each.tensors else 0.0 for each in (row, reference))
    if ours == theirs == 0:
        return 0.0
    apart = torch.as_tensor(row.mean.get(name, 0.0)) - torch.as_tensor(reference.mean.get(name, 0.0))
    sizes = (each.tensors[name] for each in measured if name in each.tensors)
    largest = max(math.hypot(noise.mean_norm, noise.variance**0.5) for noise in sizes)
    # A row that has missed rare events looks more precise than it is.
    error = math.hypot(theirs, max(ours, theirs), ROUNDING * largest)
    return float(torch.linalg.vector_norm(apart)) / error
