"""Tensors → numbers about a fit; no input, no output, no models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
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


@dataclass(frozen=True)
class ImportanceWeights:
    """What log weights log p - log q of draws from q say of how well q stands for p."""

    draws: int
    nonfinite: int
    """Draws whose log weight is NaN or infinite; if there are any, all below is None."""
    sd: float | None
    """Standard deviation of the log weights, in nats; None also of fewer than two draws."""
    k_hat: float | None
    """See :func:`psis`."""
    ess: float | None
    """Effective sample size of the smoothed weights: Kong, "A Note on Importance Sampling Using Standardized Weights",
    1992: the inverse of the sum of their squares."""
    largest: float | None
    """The largest weight's share of the sum of all, before they are smoothed: smoothing hides a draw that outweighs
    the others."""
    smoothed: Tensor | None
    """Normalised weights that sum to 1, smoothed: float64, shape [draws]."""

    @property
    def usable(self) -> bool:
        """Whether means by these draws may be right: k-hat is below its limit, or the weights are nearly alike."""
        if self.k_hat is None or self.ess is None:
            return False
        return self.k_hat < k_limit(self.draws) or self.ess >= ESS_ALIKE * self.draws


def importance_weights(log_weights: Tensor, smooth: bool = True) -> ImportanceWeights:
    """Diagnose log weights of independent draws, float64, shape [draws]; without ``smooth``, by their spread alone."""
    draws, nonfinite = log_weights.numel(), int((~log_weights.isfinite()).sum())
    if draws < 2 or nonfinite:
        return ImportanceWeights(draws, nonfinite, None, None, None, None, None)
    sd, largest = float(log_weights.std()), float(torch.softmax(log_weights, 0).max())
    found = psis(log_weights) if smooth else None
    if found is None:
        return ImportanceWeights(draws, 0, sd, None, None, largest, None)
    weights, k_hat = found
    return ImportanceWeights(draws, 0, sd, k_hat, float(1 / weights.square().sum()), largest, weights)


def psis(log_weights: Tensor) -> tuple[Tensor, float | None] | None:
    """Pareto-smoothed importance sampling: normalised weights, float64, [draws], and k-hat, the shape of their tail.

    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto Smoothed Importance Sampling", 2024, by arviz-stats. k-hat is 0 where
    all weights are equal. It is None, and the weights are not smoothed, where no tail can be fitted: where the largest
    weights are equal and others are not, or so much larger than the next that these vanish beside them in double
    precision. None altogether if there are fewer than 25 draws, if one is not finite, or if the package is missing, as
    on Python 3.10.

    Args:
        log_weights: log p - log q of independent draws, shape [draws].

    """
    if log_weights.numel() < LEAST_DRAWS or not bool(log_weights.isfinite().all()) or find_spec("arviz_stats") is None:
        return None
    log_weights = log_weights.double()
    plain = torch.softmax(log_weights, 0)
    tail = min(log_weights.numel() // 5, int(3 * math.sqrt(log_weights.numel())))
    largest = log_weights.topk(tail).values
    if float(largest[0] - largest[-1]) < _SPREAD:
        return plain, 0.0 if float(largest[0] - log_weights.min()) < _SPREAD else None
    from arviz_stats.base.array import array_stats

    with np.errstate(all="ignore"):
        # It takes log likelihoods, of which the weights are the inverses.
        smoothed, k_hat = array_stats.psislw(-log_weights.numpy())
    # The k-hat alone does not tell: where most of the tail vanishes, it is the prior's share of the estimate.
    if not math.isfinite(k_hat) or np.isnan(smoothed).any():
        return plain, None
    return torch.softmax(torch.from_numpy(smoothed), 0), float(k_hat)


LEAST_DRAWS = 25
"""Below, the tail of the weights, a fifth of them, is too short to be fitted."""

ESS_ALIKE = 0.9
"""Effective draws over draws from which on weights are nearly alike, and plain means nearly the weighted ones."""

_SPREAD = 1e-9
"""Nats between the largest weights within which they differ by rounding only."""


def k_limit(draws: int) -> float:
    """The k-hat up to which so many draws are enough for weighted means to be trusted.

    Vehtari et al., 2024: at most 0.7, which takes 2,155 draws.
    """
    return min(1 - 1 / math.log10(draws), 0.7) if draws > 1 else float("-inf")


def pareto_k(log_weights: Tensor) -> float | None:
    """The k-hat of :func:`psis` alone."""
    found = psis(log_weights)
    return None if found is None else found[1]


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
