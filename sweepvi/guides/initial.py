"""Where an autoguide's latent variables start: Pyro's functions, for densities that cannot be drawn from too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import initialization
from torch import Tensor
from torch.distributions import biject_to


def init_loc(name: str) -> Callable[..., Any]:
    """Pyro's ``init_to_NAME``; the origin where the prior is flat, and in the coordinates of a geometry."""
    # Here, because estimators import guides.
    from sweepvi.estimators.sites import WHITENED

    own = getattr(initialization, f"init_to_{name}")

    def start(site: Any = None) -> Any:
        if site is None:
            return start
        if site["name"] == WHITENED:
            return origin(site)
        try:
            return own(site)
        except NotImplementedError:
            return origin(site)

    return start


def origin(site: Any) -> Tensor:
    """The value of a site at the origin of its unconstrained coordinates."""
    transform = biject_to(site["fn"].support)
    return transform(torch.zeros(transform.inverse_shape(site["fn"].shape())))


def init_values(name: str) -> Callable[[Any], Tensor]:
    """:func:`init_loc` for any model: a draw where a variable is discrete, the origin where a start is not finite."""
    own = init_loc(name)

    def start(site: Any) -> Tensor:
        if site["fn"].support.is_discrete:
            return site["fn"]()
        value = own(site)
        return value if bool(torch.isfinite(torch.as_tensor(value)).all()) else origin(site)

    return start
