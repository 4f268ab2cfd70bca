"""Decaying averages of a site's cost: Mnih & Gregor, "Neural Variational Inference and Learning in Belief Networks",
2014, section 2.3.

They are kept where Pyro keeps them, in the parameter store: so a checkpoint has them, and each fit its own.
"""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

BASELINE_STATE_PREFIX = "__baseline_avg_downstream_cost_"
"""What the name of an average in the parameter store begins with; the site's name follows."""

OWN_PARAMETERS = "estimator.baseline."
"""What the names of parameters begin with that are the estimator's, not the model's or the guide's."""


def before_and_update(site: str, value: Tensor, beta: float) -> Tensor:
    """The average before ``value``, of its shape, zero at first; then ``beta`` × average + (1 − ``beta``) × value.

    The average keeps the shape that it began with, usually one entry for each of a plate. A value of another shape,
    such as that of a smaller last minibatch, meets the mean over the dimensions in which they differ.
    """
    name = BASELINE_STATE_PREFIX + site
    with torch.no_grad():
        value = value.detach()
        average = pyro.param(name, torch.zeros_like(value)).detach()
        pyro.get_param_store()[name] = (1 - beta) * _of_shape(value, average.shape) + beta * average
        return _of_shape(average, value.shape)


def _of_shape(value: Tensor, shape: torch.Size) -> Tensor:
    if value.shape == shape:
        return value
    extra = value.dim() - len(shape)
    if extra > 0:
        value = value.mean(tuple(range(extra)))
    for dim in range(-value.dim(), 0):
        if value.shape[dim] != shape[dim]:
            value = value.mean(dim, keepdim=True)
    return value.expand(shape)
