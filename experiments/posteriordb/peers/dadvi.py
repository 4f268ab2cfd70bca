"""Deterministic ADVI with linear response covariances, written by hand.

Giordano, Ingram & Broderick, "Black Box Variational Inference with a Deterministic Objective: Faster, More Accurate,
and Even More Black Box", 2024: independent normals, thirty draws that stay the same, a Newton method to the optimum.
"""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
from scipy.optimize import minimize

from peers.found import Found, gaussian
from peers.target import Target

NOISE = 30
"""Draws of the objective."""
LOG_SD = -3.0
"""Log standard deviations at the start, where all means are 0."""


def fit(target: Target, seed: int) -> Found:
    """Minimise, and draw from a normal with the optimum's means and covariances by linear response."""
    objective = negative_elbo(target, jax.random.normal(jax.random.PRNGKey(seed), (NOISE, target.size)))
    slope = jax.value_and_grad(objective)
    product = jax.jit(lambda at, along: jax.jvp(jax.grad(objective), (at,), (along,))[1])
    best = minimize(
        _finite_or_infinite(jax.jit(slope)),
        np.repeat([0.0, LOG_SD], target.size),
        jac=True,
        hessp=lambda at, along: np.asarray(product(at, along)),
        method="trust-ncg",
    )
    at = jnp.asarray(best.x)
    response = jnp.linalg.inv(jax.jit(jax.hessian(objective))(at))[: target.size, : target.size]
    factor = jnp.linalg.cholesky((response + response.T) / 2)
    # A product with the Hessian is a gradient and its derivative.
    evaluations = NOISE * (best.nfev + 2 * best.nhev + 4 * target.size)
    return gaussian(target, seed, at[: target.size], factor, evaluations, "" if best.success else best.message)


def negative_elbo(target: Target, noise: Any) -> Any:
    """The objective, of means and then log standard deviations: an average over noise that stays the same."""

    def objective(at: Any) -> Any:
        mean, log_sd = jnp.split(at, 2)
        return -jax.vmap(target.log_density)(mean + jnp.exp(log_sd) * noise).mean() - log_sd.sum()

    return objective


def _finite_or_infinite(slope: Any) -> Any:
    """NaN as infinity, from which the optimizer steps back."""

    def evaluate(at: Any) -> tuple[float, Any]:
        value, gradient = slope(at)
        return float(value) if np.isfinite(value) else np.inf, np.asarray(gradient)

    return evaluate
