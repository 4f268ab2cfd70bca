"""A posterior as peers see it: a log density of one unconstrained vector, and the way back to sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
from jax.flatten_util import ravel_pytree  # pyright: ignore[reportMissingImports]
from numpyro.infer.util import initialize_model  # pyright: ignore[reportMissingImports]


@dataclass(frozen=True)
class Target:
    """A posterior over ``size`` unconstrained numbers."""

    model: Callable[[], None]
    """In NumPyro, with its data."""
    start: Any
    """NumPyro's default: each coordinate uniform on (−2, 2), shape [size]."""
    log_density: Callable[[Any], Any]
    """Up to a constant, of a vector of shape [size]."""
    sites: Callable[[Any], dict[str, Any]]
    """A vector's values of latent and deterministic sites."""

    @property
    def size(self) -> int:
        """How many unconstrained numbers there are."""
        return self.start.shape[0]


def target(model: Callable[..., None], data: dict[str, Any], seed: int) -> Target:
    """The posterior of a model; the seed is that of the start."""
    info = initialize_model(jax.random.PRNGKey(seed), model, model_kwargs=data)
    start, by_site = ravel_pytree(info.param_info.z)
    return Target(
        partial(model, **data),
        start,
        lambda z: -info.potential_fn(by_site(z)),
        lambda z: info.postprocess_fn(by_site(z)),
    )
