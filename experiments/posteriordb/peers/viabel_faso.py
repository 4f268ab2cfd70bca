"""VIABEL's ``bbvi``: independent normals, ten draws a gradient, RMSProp at 0.01 with averages of iterates (FASO).

Dhaka et al., "Robust, Accurate Stochastic Optimization for Variational Inference", 2020. VIABEL's own default, RAABBVI,
fits a regression by PyStan 2, and the wheel of VIABEL 0.5.1 has not its Stan program; so this is ``fixed_lr=True``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import autograd.numpy  # pyright: ignore[reportMissingImports]
import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
from autograd.extend import defvjp, primitive  # pyright: ignore[reportMissingImports]

from peers.found import Found, gaussian
from peers.target import Target

# VIABEL imports PyStan 2, which Python 3.11 has not; what is called here needs nothing of it. And its patterns of
# parameters ask for a name that NumPy 2 no longer has.
sys.modules.setdefault("pystan", ModuleType("pystan"))
autograd.numpy.product = autograd.numpy.prod
import viabel  # noqa: E402  # pyright: ignore[reportMissingImports]

DRAWS = 10
"""Of a gradient."""


def fit(target: Target, seed: int) -> Found:
    """Run it as it comes."""
    approximation = viabel.MFGaussian(target.size, seed=seed)
    found = viabel.bbvi(target.size, log_density=for_autograd(target), approx=approximation, fixed_lr=True)
    loc, log_sd = np.split(found["opt_param"], 2)
    evaluations = DRAWS * len(found["value_history"])
    return gaussian(target, seed, jnp.asarray(loc), jnp.exp(log_sd), evaluations)


def for_autograd(target: Target) -> Any:
    """The log density of several vectors, shape [draws, size], whose gradient autograd is told."""
    values = jax.jit(jax.vmap(target.log_density))
    slopes = jax.jit(jax.vmap(jax.grad(target.log_density)))

    @primitive
    def log_density(z: Any) -> Any:
        return np.asarray(values(z))

    def pulled_back(_: Any, z: Any) -> Any:
        return lambda weights: weights[:, None] * np.asarray(slopes(z))

    defvjp(log_density, pulled_back)
    return log_density
