"""Whether a series goes anywhere: least squares over batch means."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def slopes(series: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of each column over its rows, and the slope's t-value: both of shape [D].

    Rows must be nearly independent: means of batches that are longer than what neighbours remember of each other. Where
    they are not, a wandering series passes for one with a trend, until batches are longer. A column that stays the same
    has none.

    Args:
        series: float64, shape [n, D] with n > 2.

    """
    count = len(series)
    time = torch.arange(count, dtype=torch.float64, device="cpu") - (count - 1) / 2
    spread = float(time.square().sum())
    centred = series - series.mean(0)
    slope = time @ centred / spread
    rest = (centred.square().sum(0) - slope.square() * spread).clamp(min=0.0) / (count - 2)
    error = (rest / spread).sqrt()
    # Rounding leaves traces of a trend where a parameter is frozen.
    still = centred.abs().amax(0) <= 1e-12 * series.abs().amax(0)
    return slope, torch.where(still, 0.0, slope / error)


@cache
def significant(columns: int, count: int, level: float = 0.05) -> float:
    """The size of t-value that one of some series without a trend exceeds by a chance of ``level``, after Bonferroni.

    Args:
        columns: series.
        count: rows.
        level: of both signs together.

    """
    from scipy.special import stdtrit

    return float(stdtrit(count - 2, 1 - level / (2 * max(columns, 1))))
