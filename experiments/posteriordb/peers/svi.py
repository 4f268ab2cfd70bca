"""NumPyro's SVI with an autoguide: ``Adam`` with a step size of 1e-3, 10,000 steps, one draw a step."""

from __future__ import annotations

from typing import Any

import jax  # pyright: ignore[reportMissingImports]
from jax.flatten_util import ravel_pytree  # pyright: ignore[reportMissingImports]
from numpyro.infer import SVI, Trace_ELBO  # pyright: ignore[reportMissingImports]
from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal  # pyright: ignore[reportMissingImports]
from numpyro.optim import Adam  # pyright: ignore[reportMissingImports]

from peers.found import Found, gaussian
from peers.target import Target

STEPS = 10_000


def mean_field(target: Target, seed: int) -> Found:
    """Fit by ``AutoNormal``."""
    params = _run(target, AutoNormal(target.model), seed)
    loc, scale = (_joined(params, end) for end in ("_auto_loc", "_auto_scale"))
    return gaussian(target, seed, loc, scale, STEPS)


def full_rank(target: Target, seed: int) -> Found:
    """Fit by ``AutoMultivariateNormal``."""
    params = _run(target, AutoMultivariateNormal(target.model), seed)
    return gaussian(target, seed, params["auto_loc"], params["auto_scale_tril"], STEPS)


def _run(target: Target, guide: Any, seed: int) -> dict[str, Any]:
    svi = SVI(target.model, guide, Adam(1e-3), Trace_ELBO())
    return svi.run(jax.random.PRNGKey(seed), STEPS, progress_bar=False).params


def _joined(params: dict[str, Any], end: str) -> Any:
    """Parameters of all sites with that end of a name, in the order of the target's coordinates."""
    return ravel_pytree({name.removesuffix(end): value for name, value in params.items() if name.endswith(end)})[0]
