"""Draws → means, standard deviations and quantiles with their Monte Carlo errors, plain and importance-weighted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sweepvi.diagnostics import ImportanceWeights
from sweepvi.posterior.table import COLUMNS, Posterior, Row

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

AT_ONCE = 1 << 18
"""Numbers that are worked on at a time."""


def summarised(names: Sequence[str], values: Tensor, weights: ImportanceWeights) -> Posterior:
    """The table of some scalars.

    Args:
        names: of the scalars: D of them.
        values: independent draws of the guide, shape [draws, D].
        weights: of the draws.

    """
    shares = None if weights.smoothed is None else weights.smoothed.numpy()
    width = max(1, AT_ONCE // max(1, len(values)))
    parts = [_columns(part.T.contiguous().numpy(), shares) for part in values.split(width, 1)] if names else []
    numbers = np.concatenate(parts).tolist() if parts else []
    rows = [Row(name, *row) for name, row in zip(names, numbers, strict=True)]
    return Posterior(rows, len(values), weights.k_hat)


def _columns(values: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    """Columns of the table: float64, [D, columns]; of ``values`` [D, draws] and normalised weights [draws]."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, 1)
    values = values.astype(np.float64)
    plain = [*_plain(values), *_quantiles(ordered)]
    if shares is None:
        corrected = [np.full(len(values), np.nan)] * len(plain)
    else:
        corrected = [*_weighted(values, shares), *_quantiles(ordered, shares[order])]
    found = np.stack([*plain, *corrected], 1)
    # What is the same in all draws has no spread, not even that of rounding.
    alike = ordered[:, 0] == ordered[:, -1]
    found[np.ix_(alike, _SPREADS)] = 0.0
    return found


_SPREADS = [COLUMNS.index(prefix + name) - 1 for prefix in ("", "psis_") for name in ("sd", "mcse_mean", "mcse_sd")]
"""Columns of numbers that are 0 for a scalar that does not vary."""


def _plain(values: np.ndarray) -> list[np.ndarray]:
    """Mean, standard deviation and the standard error of each: [D] each.

    The error of the standard deviation by the variance of a sample variance, of first order in 1 / draws, and the delta
    method: Stuart & Ord, "Kendall's Advanced Theory of Statistics", volume 1, sections 10.5 and 10.6.
    """
    draws = values.shape[1]
    mean = values.mean(1)
    squares = np.square(values - mean[:, None])
    mean_square = squares.mean(1)
    fourth = np.einsum("ij,ij->i", squares, squares) / draws
    sd = np.sqrt(mean_square * draws / (draws - 1))
    return [mean, sd, sd / draws**0.5, _of_root(np.sqrt((fourth - mean_square**2).clip(0) / draws), sd)]


def _weighted(values: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """The same of self-normalised importance sampling, weights that sum to 1: Owen, "Monte Carlo Theory, Methods and
    Examples", 2013, equation 9.8; for the variance, the same with the squared deviations.
    """
    mean = values @ shares
    squares = np.square(values - mean[:, None])
    variance = squares @ shares
    sd = np.sqrt(variance)
    both = np.square(shares)
    error = np.sqrt(squares @ both)
    squares -= variance[:, None]
    return [mean, sd, error, _of_root(np.sqrt(np.square(squares, out=squares) @ both), sd)]


def _of_root(error: np.ndarray, root: np.ndarray) -> np.ndarray:
    """The error of a square root, of first order, by that of its square."""
    return np.divide(error, 2 * root, out=np.zeros_like(error), where=root > 0)


def _quantiles(ordered: np.ndarray, shares: np.ndarray | None = None) -> list[np.ndarray]:
    """Quantiles, [D] each, of values in order [D, draws], linear between the middles of what each stands for.

    ``shares`` are weights in the same order, which sum to 1; None if all are equal.
    """
    if shares is not None:
        middles = np.cumsum(shares, 1) - shares / 2
        rows = [np.interp(QUANTILES, middle, row) for middle, row in zip(middles, ordered, strict=True)]
        return list(np.stack(rows, 1))
    places = np.clip(np.array(QUANTILES) * ordered.shape[1] - 0.5, 0, ordered.shape[1] - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, ordered.shape[1] - 1)
    return list((ordered[:, below] + (places - below) * (ordered[:, above] - ordered[:, below])).T)
