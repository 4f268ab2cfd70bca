"""The distribution of a normal random walk: Pyro has none."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions.transforms import Transform


def moves(loc: float, first: float, scale: Tensor, length: int) -> TorchDistribution:
    """The moves of a random walk, normal and independent: to the first value, and from each to the next.

    Args:
        loc: mean of the first value.
        first: standard deviation of the first value.
        scale: that of the later moves; its shape is the batch shape.
        length: values in the walk, the length of an event.

    """
    start = torch.arange(length, device=scale.device) == 0
    scales = torch.where(start, first, scale.unsqueeze(-1))
    return dist.Normal(loc * start.to(scale), scales).to_event(1)


class CumulativeSum(Transform):
    """From moves to the walk: sums of the first entry, of the first two, …, of all."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., :1], y.diff(dim=-1)], dim=-1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero: the matrix is triangular with ones on its diagonal."""
        del y
        return x.new_zeros(x.shape[:-1])
