"""Tensors → numbers about a fit; no input, no output, no models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ElboScore:
    """An estimate of the ELBO from fresh draws."""

    elbo: float | None
    """Mean log weight in nats; None if there is no draw, or one is not finite."""
    standard_error: float | None
    """Standard deviation of the log weights over the root of their number; None where ``elbo`` is."""
    nonfinite: int
    """Draws whose log weight is NaN or infinite."""


def elbo_score(log_weights: Tensor) -> ElboScore:
    """The ELBO and its standard error from log weights log p(data, z) - log q(z), shape [draws], z drawn from q.

    The ELBO is their mean: Blei, Kucukelbir & McAuliffe, "Variational Inference: A Review for Statisticians", 2017,
    equation 13.
    """
    nonfinite = int((~log_weights.isfinite()).sum())
    draws = log_weights.numel()
    if draws == 0 or nonfinite:
        return ElboScore(None, None, nonfinite)
    error = float(log_weights.std()) / math.sqrt(draws) if draws > 1 else None
    return ElboScore(float(log_weights.mean()), error, 0)
