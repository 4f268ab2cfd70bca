"""What a network may know when it predicts a site's cost: all that the guide has drawn before, and the site's own
distribution.

The distribution's parameters carry what the guide has made of its data: a row of them belongs to a row of data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweepvi.estimators.dependence import plain
from sweepvi.private import is_subsample


def features(name: str, guide_trace: Any, shape: torch.Size) -> Tensor:
    """Features of site ``name`` for each entry of its cost: shape ``[*shape, features]``, without gradient.

    A plate that the site is not in is laid out as features if it is whole, and averaged over if it is a minibatch,
    whose order means nothing.
    """
    site = guide_trace.nodes[name]
    columns = [
        _column(other["value"], other["fn"].event_dim, other["cond_indep_stack"], site, shape)
        for other in _before(name, guide_trace)
    ]
    own = site["fn"]
    for parameter in distribution_parameters(own):
        events = max(parameter.dim() - len(own.batch_shape), 0)
        columns.append(_column(parameter, events, site["cond_indep_stack"], site, shape))
    dtype = torch.get_default_dtype()
    return torch.cat([column.to(dtype) for column in columns], -1) if columns else torch.ones(*shape, 1)


def distribution_parameters(fn: Any) -> list[Tensor]:
    """The tensors that a distribution was made of, innermost first where distributions wrap each other."""
    while hasattr(fn, "base_dist") and not hasattr(fn, "transforms"):
        fn = fn.base_dist
    held = (vars(fn).get(name) for name in getattr(fn, "arg_constraints", {}))
    return [plain(value).detach() for value in held if isinstance(value, Tensor)]


def _before(name: str, guide_trace: Any) -> list[Any]:
    sites = []
    for other, site in guide_trace.nodes.items():
        if other == name:
            return sites
        if site["type"] == "sample" and not is_subsample(site):
            sites.append(site)
    return sites


def _column(value: Any, events: int, stack: Any, site: Any, shape: torch.Size) -> Tensor:
    """``value`` with the batch of ``shape``, all else of it in one last dimension."""
    value = plain(value).detach()
    batch = value.dim() - events
    shared = {frame.name for frame in site["cond_indep_stack"]}
    for frame in stack:
        if not frame.vectorized or frame.name in shared or -frame.dim > batch:
            continue
        dim = frame.dim - events
        if frame.full_size is not None and frame.size < frame.full_size:
            value = value.mean(dim, dtype=torch.get_default_dtype(), keepdim=True)
        else:
            value = value.movedim(dim, -1).unsqueeze(dim - 1)
            events += 1
    batch_shape = value.shape[: value.dim() - events]
    # A cost has no leading dimensions of size 1; a plate of one entry, or none at all, does.
    flat = value.reshape(*batch_shape[max(len(batch_shape) - len(shape), 0) :], -1)
    return flat.expand(*shape, flat.shape[-1])
