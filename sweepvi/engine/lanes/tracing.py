"""What a function does to its tensors, as a flat graph of torch's operations.

The graph is that of ``make_fx`` on real tensors, without what this spends on symbols, hooks and records that nothing
here asks for: most of its time, which is most of what a short fit takes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from sweepvi.private import DispatchMode, is_composite, without_numbers

aten = torch.ops.aten


class ValueReadError(RuntimeError):
    """A function asked for the value of a tensor that may be another in the next call."""


@dataclass(frozen=True)
class Traced:
    """A function's operations."""

    graph: Graph
    """Its placeholders are the inputs, and then what the function reads without being handed it.

    A node's ``meta["val"]`` has the shape, strides and type of its tensor, on the device ``meta``; its device is
    ``meta["device"]``. Where a node is several tensors, ``meta["val"]`` is several.
    """
    read: list[Tensor]
    """The tensors of these last placeholders, in order."""

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """What the function does."""
        return GraphModule(torch.nn.Module(), self.graph)(*inputs, *self.read)


def traced(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Traced:
    """The operations of ``function(*inputs)``, transforms and derivatives in it worked out.

    Raises ``ValueReadError`` where what it does may depend on the value of a tensor that it is handed.
    """
    recorder, before = _Recorder(inputs), _tracing.set(True)
    try:
        # With gradients, what autograd returns of a view would be another tensor than the one that was seen here.
        with torch.no_grad(), recorder:
            out = function(*inputs)
    finally:
        _tracing.reset(before)
    return recorder.concluded(out)


_tracing: ContextVar[bool] = ContextVar("_tracing", default=False)


def is_traced() -> bool:
    """Whether what is called now is being traced: here, by ``make_fx``, or by ``torch.compile``."""
    return _tracing.get() or get_proxy_mode() is not None or torch.compiler.is_compiling()


class _Recorder(DispatchMode):
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._graph = Graph()
        self._nodes = WeakTensorKeyDictionary()
        self._read: list[Tensor] = []
        self._last: Node | None = None
        for number, tensor in enumerate(inputs):
            self._place(tensor, f"input_{number}")
        self._varying = set(self._graph.nodes)

    def concluded(self, out: Sequence[Tensor]) -> Traced:
        self._graph.output([self._node(tensor) for tensor in out])
        return Traced(self._graph, self._read)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags:
            return self._value(func, args, kwargs)
        if func is aten.lift_fresh.default:
            # The tensor is new, and may be written into: in the graph, it has to be new in every call.
            func = aten.lift_fresh_copy.default
        places, options = self._places(args), {name: self._places(value) for name, value in kwargs.items()}
        out = func(*args, **kwargs)
        node = self._graph.create_node("call_function", func, places, options, name=func.overloadpacket.__name__)
        if func is not aten.lift_fresh_copy.default and (
            torch.Tag.nondeterministic_seeded in func.tags
            or any(source in self._varying or source.op == "placeholder" for source in node.all_input_nodes)
        ):
            self._varying.add(node)
        self._note(node, out)
        return out

    def _value(self, func: Any, args: Any, kwargs: Any) -> Any:
        node = self._nodes.get(args[0])
        if node is not None and node in self._varying:
            raise ValueReadError(f"{func} reads a tensor's value; this is data-dependent control flow, or leads to it")
        return func(*args, **kwargs)

    def _places(self, value: Any) -> Any:
        """Arguments with nodes in the places of tensors."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, tuple | list):
            return type(value)(map(self._places, value))
        return value

    def _node(self, tensor: Tensor) -> Node:
        node = self._nodes.get(tensor)
        if node is None:
            # Results are held weakly; a list keeps this one, and with it the meaning of its identity.
            self._read.append(tensor)
            node = self._place(tensor, f"tensor_{len(self._read)}")
        return node

    def _place(self, tensor: Tensor, name: str) -> Node:
        with self._graph.inserting_before() if self._last is None else self._graph.inserting_after(self._last):
            self._last = node = self._graph.placeholder(name)
        self._nodes[tensor] = node
        _describe(node, tensor)
        return node

    def _note(self, node: Node, out: Any) -> None:
        _describe(node, out)
        if isinstance(out, Tensor):
            self._nodes[out] = node
        elif isinstance(out, tuple | list):
            for place, each in enumerate(out):
                part = self._graph.create_node("call_function", operator.getitem, (node, place), name="getitem")
                self._note(part, each)
                if node in self._varying:
                    self._varying.add(part)


def _describe(node: Node, value: Any) -> None:
    node.meta["val"] = tree_map(without_numbers, value)
    if isinstance(value, Tensor):
        node.meta["device"] = value.device
