"""Runs on all of the data, where a fit's steps take minibatches of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
from pyro.distributions.util import broadcast_shape
from torch import Tensor

from sweepvi.engine.score import traces
from sweepvi.estimators.sites import is_placed
from sweepvi.guides.guide import Program
from sweepvi.loading import message_of
from sweepvi.private import is_deterministic, is_minibatch, whole_plates
from sweepvi.problem import Problem


@dataclass(frozen=True)
class Coverage:
    """How much of the data an evaluation sees at the end of a fit, and how to have it see that."""

    plates: Callable[[], AbstractContextManager[None]]
    """Programs that run inside see as much."""
    data_size: int
    """Entries of observed sites, with those of plates outside the minibatch; events such as vectors count once."""
    note: str = ""
    """Empty if all data is seen; otherwise why not."""


def coverage(programs: Mapping[str, Program], problem: Problem, minibatches: bool = False) -> Coverage:
    """Whole plates where programs run on them; minibatches, scaled up, where not, or if ``minibatches`` asks for them.

    Draws: seed afterwards.
    """
    model, guide = traces(programs, problem)
    partial = _partial(model, guide)
    size = _data_size(model)
    if not partial:
        return Coverage(nullcontext, size)
    note = f"the ELBO is over random minibatches of {', '.join(partial)}, scaled up"
    if minibatches:
        return Coverage(nullcontext, size, note)
    try:
        with whole_plates():
            partial = _partial(*traces(programs, problem))
    except Exception as error:
        return Coverage(nullcontext, size, f"{note}; on all data: {message_of(error, 200)}")
    note = f"the ELBO is over the minibatches of {', '.join(partial)} that the program chooses itself, scaled up"
    return Coverage(whole_plates, size, note if partial else "")


def _partial(*of: Any) -> list[str]:
    """Plates of which a run has seen a part."""
    sites = {name: site for trace in of for name, site in trace.nodes.items() if site["type"] == "sample"}
    return [name for name, site in sites.items() if is_minibatch(site)]


def _data_size(model_trace: Any) -> int:
    return sum(_entries(site) for site in model_trace.nodes.values() if _is_data(site))


def _is_data(site: Any) -> bool:
    # pyro.factor observes a Unit; pyro.deterministic a Delta.
    if site["type"] != "sample" or not site["is_observed"]:
        return False
    return not isinstance(site["fn"], dist.Unit) and not is_deterministic(site) and not is_placed(site)


def _entries(site: Any) -> int:
    value, events = site["value"], site["fn"].event_dim
    shape = value.shape[: value.dim() - events] if isinstance(value, Tensor) else ()
    shape = broadcast_shape(shape, site["fn"].batch_shape)
    seen = math.prod(shape)
    if isinstance(site["mask"], Tensor):
        seen = int(site["mask"].expand(broadcast_shape(shape, site["mask"].shape)).sum())
    return round(seen * math.prod((frame.full_size or frame.size) / frame.size for frame in site["cond_indep_stack"]))
