"""A guide run again on draws that it has made, with parameters that carry no gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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
        draws: by site, what takes the place of the trace's own draws; see :func:`at_draws`.
        args: the guide's arguments.
        kwargs: the guide's keyword arguments.

    """
    with fixed_parameters():
        again: Any = poutine.trace(at_draws(guide, guide_trace, draws)).get_trace(*args, **kwargs)
        # Here, and not later: a distribution may hold a parameter itself, and use it only now.
        again.compute_score_parts()
    return again


def path_only(guide: Any, guide_trace: Any, args: Any, kwargs: Any) -> Any:
    """The trace of a guide that meets its own draws again: its densities depend on parameters through draws alone."""
    # Tensors of their own: a transform that remembers what it made of a draw would hide the path through it.
    draws = {name: site["value"].clone() for name, site in stochastic(guide_trace).items()}
    return replayed(guide, guide_trace, draws, args, kwargs)


def at_draws(guide: Any, guide_trace: Any, draws: Mapping[str, Tensor]) -> Any:
    """The guide, to meet ``draws`` again where it met the trace's.

    Sites that are not in ``draws``, such as those that an autoguide computes from others, are computed anew.
    """
    kept = guide_trace.copy()
    for name in list(kept.nodes):
        if name in draws:
            kept.nodes[name] = {**kept.nodes[name], "value": draws[name]}
        else:
            kept.remove_node(name)
    return poutine.replay(guide, trace=kept)


def stochastic(guide_trace: Any) -> dict[str, Any]:
    """The guide's sites that draw something: neither minibatches nor values that are computed from other sites."""
    return {
        name: site
        for name, site in guide_trace.nodes.items()
        if site["type"] == "sample" and not is_subsample(site) and not _is_computed(site["fn"])
    }


_ways_to_fix: list[Callable[[], AbstractContextManager[None]]] = []


@contextmanager
def fixing_by(fix: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Inside, parameters are held fixed inside ``fix()``: for parameters that are no leaves of a graph."""
    _ways_to_fix.append(fix)
    try:
        yield
    finally:
        _ways_to_fix.pop()


@contextmanager
def fixed_parameters() -> Iterator[None]:
    """Inside, the parameters of the fit carry no gradient."""
    fix = _ways_to_fix[-1] if _ways_to_fix else _without_gradients
    with fix(), warnings.catch_warnings():
        # Of a network that is registered already.
        warnings.filterwarnings("ignore", message=".*was not registered in the param store")
        yield


@contextmanager
def _without_gradients() -> Iterator[None]:
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
