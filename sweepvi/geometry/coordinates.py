"""The unconstrained coordinates of a model: all its continuous latent variables as one vector.

Each variable is a part of the vector, taken to its support by ``torch.distributions.biject_to``, as Pyro's autoguides
and Stan do. The support is that of the run at hand, so it may depend on variables before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.util import broadcast_shape, sum_rightmost
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to

from sweepvi.estimators.sites import PLACED, distribution_name, is_countable, is_latent
from sweepvi.private import is_minibatch


class NoGeometryError(Exception):
    """A model, or its log joint density, admits no geometry; the message says why, in a line."""


@dataclass(frozen=True)
class Part:
    """A latent variable in the vector."""

    name: str
    start: int
    shape: torch.Size
    """Of its unconstrained value."""
    event_dim: int
    """Of its unconstrained value's dimensions, those that belong to one draw."""

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.start + self.shape.numel()


@dataclass(frozen=True)
class Coordinates:
    """The vector's parts, in the order in which the model draws them."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Numbers of the vector, D."""
        return self.parts[-1].end if self.parts else 0

    @staticmethod
    def of(trace: Any) -> Coordinates:
        """Those of a model's trace; ``NoGeometryError`` if its latent variables make no vector."""
        parts: list[Part] = []
        for site in _continuous(trace):
            fn, value = site["fn"], biject_to(site["fn"].support).inv(site["value"])
            events = fn.event_dim + value.dim() - site["value"].dim()
            parts.append(Part(site["name"], parts[-1].end if parts else 0, value.shape, events))
        if not parts:
            raise NoGeometryError("the model has no continuous latent variable")
        return Coordinates(tuple(parts))

    def packed(self, trace: Any) -> Tensor:
        """The vector of a trace's values, shape [D]."""
        sites = [trace.nodes[part.name] for part in self.parts]
        return torch.cat([biject_to(site["fn"].support).inv(site["value"]).reshape(-1) for site in sites])


def _continuous(trace: Any) -> Iterator[Any]:
    """The latent sites that a vector can hold: not those that are summed over."""
    for site in trace.nodes.values():
        if site["type"] == "sample" and is_minibatch(site):
            raise NoGeometryError(f"plate {site['name']} takes minibatches, and latent variables with it")
        if not is_latent(site) or (is_countable(site) and site["infer"].get("enumerate")):
            continue
        if site["fn"].support.is_discrete:
            raise NoGeometryError(f"{site['name']} ({distribution_name(site['fn'])}) is discrete, and not summed over")
        yield site


class Placing(Messenger):
    """Inside, a model's latent variables have the values that a vector gives them; its trace has them as observed.

    Args:
        coordinates: of the model.
        vector: shape [..., D]; dimensions before the last are those of plates around the model, 1 where the model's
            own plates are.

    """

    def __init__(self, coordinates: Coordinates, vector: Tensor) -> None:
        super().__init__()
        self._parts = {part.name: part for part in coordinates.parts}
        self._vector = vector
        self.log_volume = vector.new_zeros(vector.shape[:-1])
        """Log of the factor by which volumes change from the vector to the values, of variables so far: shape [...]."""

    def _pyro_sample(self, msg: Any) -> None:
        part = self._parts.get(msg["name"])
        if part is None or msg["value"] is not None:
            return
        batch = self._vector.shape[:-1]
        shape = broadcast_shape(part.shape, (*batch, *[1] * part.event_dim))
        unconstrained = self._vector[..., part.start : part.end].reshape(shape)
        transform = biject_to(msg["fn"].support)
        value = transform(unconstrained)
        volume = transform.log_abs_det_jacobian(unconstrained, value)
        events = volume.dim() - (value.dim() - msg["fn"].event_dim)
        volume = torch.as_tensor(sum_rightmost(volume, events))
        volume = volume.expand(broadcast_shape(volume.shape, batch))
        self.log_volume = self.log_volume + volume.sum_to_size(batch)
        msg["value"], msg["is_observed"] = value, True
        msg["infer"] = {**(msg["infer"] or {}), PLACED: True}
