"""A guide run again on draws that it has made, with parameters that carry no gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyro import poutine
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.private import is_subsample, unconstrained_params


class SameMinibatches(Messenger):
    """Remembers the minibatches that plates choose inside it for the first time, and serves them from then on."""

    def __init__(self) -> None:
        super().__init__()
        self._chosen: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if is_subsample(msg) and msg["name"] in self._chosen:
            msg["value"] = self._chosen[msg["name"]]

    def _pyro_post_sample(self, msg: Any) -> None:
        if is_subsample(msg):
            self._chosen[msg["name"]] = msg["value"]


def replayed(guide: Any, guide_trace: Any, draws: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """The trace of a guide that meets ``draws`` again, its parameters held fixed; densities are computed.

    Args:
        guide: the guide.
        guide_trace: its trace.
        draws: by site, what takes the place of the trace's own draws. Sites that are not in it, such as those that an
            autoguide computes from others, are computed anew.
        args: the guide's arguments.
        kwargs: the guide's keyword arguments.

    """
    kept = guide_trace.copy()
    for name in list(kept.nodes):
        if name in draws:
            kept.nodes[name] = {**kept.nodes[name], "value": draws[name]}
        else:
            kept.remove_node(name)
    with fixed_parameters():
        again: Any = poutine.trace(poutine.replay(guide, trace=kept)).get_trace(*args, **kwargs)
        # Here, and not later: a distribution may hold a parameter itself, and use it only now.
        again.compute_score_parts()
    return again


def stochastic(guide_trace: Any) -> dict[str, Any]:
    """The guide's sites that draw something: neither minibatches nor values that are computed from other sites."""
    return {
        name: site
        for name, site in guide_trace.nodes.items()
        if site["type"] == "sample" and not is_subsample(site) and not _is_computed(site["fn"])
    }


@contextmanager
def fixed_parameters() -> Iterator[None]:
    """Inside, the parameters of the fit require no gradient."""
    learning = [param for param in unconstrained_params().values() if param.requires_grad]
    for param in learning:
        param.requires_grad_(False)
    try:
        yield
    finally:
        for param in learning:
            param.requires_grad_(True)


def _is_computed(fn: Any) -> bool:
    while hasattr(fn, "base_dist") and not isinstance(fn, Delta):
        fn = fn.base_dist
    return isinstance(fn, Delta)
