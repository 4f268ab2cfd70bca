"""Tensors → numbers about a fit; no input, no output, no models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
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


def predictive_score(log_densities: Tensor) -> ElboScore:
    """The log predictive density of data from log p(data | z), shape [draws], of draws z of the guide: its ``elbo``.

    The logarithm of the mean density, with the error of first order: Vehtari, Gelman & Gabry, "Practical Bayesian Model
    Evaluation Using Leave-One-Out Cross-Validation and WAIC", 2017, equation 3, for all data together.
    """
    nonfinite = int((~log_densities.isfinite()).sum())
    draws = log_densities.numel()
    if draws == 0 or nonfinite:
        return ElboScore(None, None, nonfinite)
    mean = torch.logsumexp(log_densities, 0) - math.log(draws)
    shares = (log_densities - mean).exp()
    error = float(shares.std()) / math.sqrt(draws) if draws > 1 else None
    return ElboScore(float(mean), error, 0)


def pareto_k(log_weights: Tensor) -> float | None:
    """Pareto k-hat of log weights log p - log q, shape [draws]; None if there are too few or one is not finite.

    Above 0.7, the guide is too far from the posterior for weights to mend it: Vehtari, Simpson, Gelman, Yao & Gabry,
    "Pareto Smoothed Importance Sampling", 2024. By arviz-stats.
    """
    if log_weights.numel() < 25 or not bool(log_weights.isfinite().all()):
        return None
    from arviz_stats.base.array import array_stats

    return float(array_stats.psislw(log_weights.numpy())[1])


def r_hats(means: Tensor, variances: Tensor, count: int) -> Tensor:
    """R-hat of parameters over several optimizations, from the moments of each one's iterates: shape [D].

    Gelman & Rubin, "Inference from Iterative Simulation Using Multiple Sequences", 1992, applied to iterates of
    stochastic optimization as in Dhaka et al., "Robust, Accurate Stochastic Optimization for Variational Inference",
    2020, section 3. Near 1, the optimizations agree; NaN if there are fewer than two iterates.

    Args:
        means: of each optimization's iterates, shape [optimizations, D].
        variances: of the same shape, unbiased.
        count: iterates of each.

    """
    if count < 2:
        return torch.full_like(means[0], float("nan"))
    within, between = variances.mean(0), means.var(0)
    ratio = ((count - 1) / count * within + between) / within
    # Parameters that do not move agree if they are where the others are.
    return torch.where(within > 0, ratio, torch.where(between > 0, torch.inf, 1.0)).sqrt()
