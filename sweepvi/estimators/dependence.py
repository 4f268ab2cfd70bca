"""Which terms of an ELBO depend on which draws: what Rao-Blackwellised score-function gradients need to know.

Draws that cannot be differentiated carry their site's name through every tensor operation, after Wingate, Goodman,
Stuhlmüller & Siskind, "Nonstandard Interpretations of Probabilistic Programs for Efficient Inference", 2011. A name
can be lost: a program that branches on ``z.item()``, or writes ``z`` into a tensor of its own, depends on ``z``
through no operation on tensors. Such a site is noted as escaped, and everything counts as depending on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pyro.ops.provenance import ProvenanceTensor
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.private import is_subsample

_TO_PYTHON = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__")
}
# Pyro and torch look at values only to check or to choose between ways to the same number.
_LIBRARIES = ("torch", "pyro")


class Tracked(ProvenanceTensor):
    """A tensor with the names of the sites whose draws it depends on; so are the results of operations on it."""

    escaped: set[str]

    @classmethod
    def of(cls, value: Tensor, names: frozenset[str], escaped: set[str]) -> Tensor:
        """``value`` that depends on ``names``; names that get lost are added to ``escaped``."""
        tracked = cls(value, names)
        tracked.escaped = escaped
        return tracked

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` on plain tensors, and let its results depend on what its arguments depend on."""
        kwargs = kwargs or {}
        inputs = list(_tracked_in((args, kwargs)))
        names = frozenset().union(*(tensor._provenance for tensor in inputs))
        escaped = inputs[0].escaped if inputs else set()
        if func in _TO_PYTHON and not _in_a_library():
            escaped |= names
        result = func(*_plain(args), **_plain(kwargs))
        if _writes(func, kwargs):
            target = kwargs.get("out", args[0])
            if isinstance(target, Tracked):
                target._provenance = target._provenance | names
            else:
                escaped |= names
        return _tracking(result, names, escaped)


def plain(value: Any) -> Any:
    """A tensor without the names that it carries; what carries none is returned as it is."""
    return value._t if isinstance(value, ProvenanceTensor) else value


def names_in(value: Any) -> frozenset[str]:
    """The names of the sites that a tensor depends on."""
    return value._provenance if isinstance(value, ProvenanceTensor) else frozenset()


class TrackDraws(Messenger):
    """Inside, every draw that cannot be differentiated carries the name of its site.

    Guide and model run inside one of these, one after the other: a value that the guide has drawn is the guide's,
    whatever the model's own distribution of it can do.

    Attributes:
        escaped: names of sites whose draws the program has used outside tensor operations.

    """

    def __init__(self) -> None:
        super().__init__()
        self.escaped: set[str] = set()
        self._drawn: set[str] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["is_observed"] or is_subsample(msg) or msg["name"] in self._drawn:
            return
        self._drawn.add(msg["name"])
        if not getattr(msg["fn"], "has_rsample", False):
            names = names_in(msg["value"]) | {msg["name"]}
            msg["value"] = Tracked.of(plain(msg["value"]), names, self.escaped)


def _tracked_in(value: Any) -> Iterable[Tracked]:
    if isinstance(value, Tracked):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tracked_in(entry)
    elif isinstance(value, Mapping):
        yield from _tracked_in(list(value.values()))
    elif isinstance(value, slice):
        yield from _tracked_in((value.start, value.stop, value.step))


def _plain(value: Any) -> Any:
    if isinstance(value, ProvenanceTensor):
        return value._t
    if isinstance(value, list | tuple):
        entries = [_plain(entry) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, slice):
        return slice(_plain(value.start), _plain(value.stop), _plain(value.step))
    return value


def _tracking(result: Any, names: frozenset[str], escaped: set[str]) -> Any:
    if isinstance(result, Tensor):
        return Tracked.of(result, names, escaped) if names else result
    if isinstance(result, list | tuple) and any(isinstance(entry, Tensor) for entry in result):
        entries = [_tracking(entry, names, escaped) for entry in result]
        return type(result)(entries) if type(result) in (list, tuple, torch.Size) else tuple(entries)
    return result


def _writes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return name == "__setitem__" or in_place or kwargs.get("out") is not None


def _in_a_library() -> bool:
    """Whether the innermost code that does not pass a call on is torch's or Pyro's."""
    frame: Any = sys._getframe(2)
    while frame is not None and _passes_on(frame):
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "") if frame is not None else ""
    return module.partition(".")[0] in _LIBRARIES


def _passes_on(frame: Any) -> bool:
    dispatching = frame.f_globals.get("__name__", "") in ("torch._tensor", "torch.overrides")
    return dispatching or frame.f_code.co_name == "__torch_function__"
