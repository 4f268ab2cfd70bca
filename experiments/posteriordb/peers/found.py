"""What a peer finds: draws in unconstrained coordinates, with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]

from peers.target import Target

DRAWS = 10_000
"""Draws of a fit, by which it is judged."""


@dataclass(frozen=True)
class Found:
    """A fit's draws, and what it cost."""

    z: Any
    """Shape [draws, size]."""
    log_weights: Any
    """Log density less that of the approximation, of draws from the latter."""
    evaluations: int
    """Gradients of the log density, counted by draw."""
    note: str = ""


def gaussian(target: Target, seed: int, loc: Any, factor: Any, evaluations: int, note: str = "") -> Found:
    """Draws of a normal approximation.

    Args:
        target: what is approximated.
        seed: of the draws.
        loc: mean, shape [size].
        factor: standard deviations, shape [size], or the Cholesky factor of a covariance.
        evaluations: what the fit took.
        note: what is to be said of it.

    """
    noise = jax.random.normal(jax.random.PRNGKey(seed + 1_000_000), (DRAWS, target.size))
    scales = factor if factor.ndim == 1 else jnp.diag(factor)
    z = loc + (noise * factor if factor.ndim == 1 else noise @ factor.T)
    log_q = jax.scipy.stats.norm.logpdf(noise).sum(-1) - jnp.log(scales).sum()
    log_p = jax.jit(jax.vmap(target.log_density))(z)
    return Found(z, log_p - log_q, evaluations, note)
