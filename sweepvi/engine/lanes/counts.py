"""Poisson and binomial variates from uniforms that are handed in.

Where the mean is below 10, by inversion: the sum over the counts that have any weight. Above, by Hörmann's transformed
rejection ("The Transformed Rejection Method for Generating Poisson Random Variables", 1993, algorithm PTRS; "The
Generation of Binomial Random Variates", 1993, algorithm BTRS), with so many tries that none is accepted once in
5·10⁶ draws at the worst (mean 10), and the mean, rounded, is taken then. All in double precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TRIES = 12
TABLE = 65
"""Counts from 0 that inversion looks at: beyond them is less than 10⁻²⁹ of the weight."""
_SMALL = 10.0


def poisson(rate: Tensor, uniforms: Tensor) -> Tensor:
    """Poisson counts, float64.

    Args:
        rate: at least 0, float64, any shape.
        uniforms: float64, shape [*rate.shape, 2, TRIES].

    """
    small, rate = rate.unsqueeze(-1).clamp(max=_SMALL), rate.unsqueeze(-1).clamp_min(_SMALL)
    b = 0.931 + 2.53 * rate.sqrt()
    a = -0.059 + 0.02483 * b

    def log_weight(k: Tensor, rate: Tensor) -> Tensor:
        return torch.xlogy(k, rate) - rate - torch.lgamma(k + 1)

    large = _by_rejection(
        uniforms, a, b, rate + 0.43, 0.9277 - 3.6224 / (b - 2), (1.1239 + 1.1328 / (b - 3.4)).log(),
        lambda k: log_weight(k, rate), torch.full_like(rate, torch.inf), rate.round(),
    )  # fmt: skip
    counts = torch.arange(TABLE, dtype=torch.float64, device=rate.device)
    by_inversion = _by_inversion(uniforms[..., 0, 0], log_weight(counts, small))
    return torch.where(rate.squeeze(-1) > _SMALL, large, by_inversion)


def binomial(total: Tensor, probability: Tensor, uniforms: Tensor) -> Tensor:
    """Binomial counts, float64.

    Args:
        total: whole numbers, float64, any shape.
        probability: float64, of the same shape.
        uniforms: float64, shape [*total.shape, 2, TRIES].

    """
    n, rare = total.unsqueeze(-1), torch.minimum(probability, 1 - probability).unsqueeze(-1)
    mean = n * rare
    is_small = mean <= _SMALL

    def log_weight(k: Tensor, n: Tensor, p: Tensor) -> Tensor:
        inside = k.minimum(n).clamp_min(0)
        ways = torch.lgamma(n + 1) - torch.lgamma(inside + 1) - torch.lgamma(n - inside + 1)
        found = ways + torch.xlogy(inside, p) + torch.xlogy(n - inside, 1 - p)
        return torch.where(k > n, -torch.inf, found)

    # Where the mean is small, numbers that any formula can take stand in.
    many, p = torch.where(is_small, 100.0, n), torch.where(is_small, 0.5, rare)
    spread = (many * p * (1 - p)).sqrt()
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p
    mode = ((many + 1) * p).floor()
    large = _by_rejection(
        uniforms, a, b, many * p + 0.5, 0.92 - 4.2 / b, ((2.83 + 5.1 / b) * spread).log(),
        lambda k: log_weight(k, many, p) - log_weight(mode, many, p), many, (many * p).round(),
    )  # fmt: skip
    counts = torch.arange(TABLE, dtype=torch.float64, device=n.device)
    by_inversion = _by_inversion(uniforms[..., 0, 0], log_weight(counts, n, torch.where(is_small, rare, 0.0)))
    found = torch.where(is_small.squeeze(-1), by_inversion, large).minimum(total)  # weights are rounded
    return torch.where(probability > 0.5, total - found, found)


def _by_inversion(uniform: Tensor, log_weights: Tensor) -> Tensor:
    ends = log_weights.exp().cumsum(-1)
    return (uniform.unsqueeze(-1) > ends).sum(-1).to(uniform.dtype)


def _by_rejection(
    uniforms: Tensor, a: Tensor, b: Tensor, centre: Tensor, box: Tensor, log_scale: Tensor,
    log_weight: Any, most: Tensor, otherwise: Tensor,
) -> Tensor:  # fmt: skip
    """The first count that is accepted: the names are the papers', but for ``box``, theirs v_r, and the scale, α."""
    u, v = uniforms[..., 0, :] - 0.5, uniforms[..., 1, :]
    us = 0.5 - u.abs()
    k = ((2 * a / us + b) * u + centre).floor()
    inside = (k >= 0) & (k <= most)
    at = torch.where(inside, k, otherwise)
    fits = v.log() + log_scale - (a / us**2 + b).log() <= log_weight(at)
    accepted = inside & (((us >= 0.07) & (v <= box)) | (((us >= 0.013) | (v <= us)) & fits))
    first = accepted.to(torch.int64).argmax(-1, keepdim=True)
    return torch.where(accepted.any(-1), k.gather(-1, first).squeeze(-1), otherwise.squeeze(-1))
