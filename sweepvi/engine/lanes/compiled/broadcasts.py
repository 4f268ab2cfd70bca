"""Numbers that are the same along a dimension, computed once along it.

A compiler that joins operations computes what is small anew wherever it meets something large: the logarithm of one
standard deviation for each of five thousand observations. Here, in a graph that is to be compiled, what operations make
of expanded tensors is made of the tensors before they are expanded, and what is then broadcast is kept in memory of its
own. No bit of a result changes.

Graphs are as in :mod:`sweepvi.engine.lanes.graph_passes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.fx import Graph, Node, map_arg

from sweepvi.private import without_numbers

aten = torch.ops.aten

FEWER = 16
"""What is broadcast to so many times its numbers, at least, is kept in memory of its own."""

_POINTWISE: set[Any] = {aten._to_copy.default, aten.softplus_backward.default}
"""Operations on each number by itself, beside those that torch says are."""

_SHAPES: set[Any] = {aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim}


def without_broadcasts(graph: Graph) -> Graph:
    """A copy of a graph in which nothing is computed of what is only repeated."""
    found = Graph()
    found.output(found.graph_copy(graph, {}))
    _before_expanding(found)
    found.eliminate_dead_code()
    _kept(found)
    _reordered_once(found)
    for node in found.nodes:
        if node.target is aten.view.default:
            # Strides are others here and there.
            node.target = aten.reshape.default
    return found


def _before_expanding(graph: Graph) -> None:
    small: dict[Node, Node] = {}
    for node in _calls(graph):
        if node.target is aten.expand.default:
            source: Any = node.args[0]
            # A tensor without dimensions has less say in the type of a result.
            if _value(source).dim() > 0 and _numel(source) < _numel(node):
                small[node] = source
        elif is_pointwise(node):
            _compute_small(graph, node, small)


def _compute_small(graph: Graph, node: Node, small: dict[Node, Node]) -> None:
    sources = [small.get(source, source) for source in node.all_input_nodes]
    if sources == node.all_input_nodes:
        return
    args, kwargs = _mapped((node.args, node.kwargs), lambda source: small.get(source, source))
    shape, value = broadcast_shape(*(_value(source).shape for source in sources)), _value(node)
    if tuple(shape) == tuple(value.shape):
        node.args, node.kwargs = args, kwargs
        return
    operation: Any = node.target
    result = operation(*_values(args), **_values(kwargs))
    if result.dtype != value.dtype or result.dim() != value.dim():
        return
    with graph.inserting_before(node):
        small[node] = once = graph.call_function(operation, args, kwargs)
    once.meta = {**node.meta, "val": without_numbers(result)}
    node.target, node.args, node.kwargs = aten.expand.default, (once, list(value.shape)), {}
    node.meta["val"] = without_numbers(result.expand(value.shape))


def _kept(graph: Graph) -> None:
    kept: dict[Node, Node] = {}
    for node in _calls(graph):
        if not is_pointwise(node):
            continue
        for source in node.all_input_nodes:
            if _numel(source) * FEWER <= _numel(node):
                node.replace_input_with(source, _in_memory(graph, source, kept))


def _reordered_once(graph: Graph) -> None:
    """Have what is put in another order once, in memory, and not wherever it is used."""
    for node in _calls(graph):
        if node.target is aten.index.Tensor and len(node.users) > 1 and _numel(node) == _numel(node.args[0]):
            users = list(node.users)
            reordered = _in_memory(graph, node, {})
            for user in users:
                user.replace_input_with(node, reordered)


def _in_memory(graph: Graph, node: Node, kept: dict[Node, Node]) -> Node:
    if node in kept:
        return kept[node]
    root: Any = node
    while root.op == "call_function" and root.target in _SHAPES and _value(root.args[0]).is_contiguous():
        root = root.args[0]
    if root.op != "call_function":
        return node
    value = _value(root)
    with graph.inserting_after(root):
        # What has these strides already is no copy to the compiler, and anything else has not.
        copy = graph.call_function(aten.clone.default, (root,), {"memory_format": torch.contiguous_format})
    copy.meta = {**root.meta, "val": value.contiguous()}
    with graph.inserting_after(copy):
        # Of what it reads by its strides, a compiler makes a tensor.
        shape = list(value.shape)
        made = graph.call_function(aten.as_strided.default, (copy, shape, list(copy.meta["val"].stride())))
    made.meta = dict(copy.meta)
    if node is not root:
        with graph.inserting_after(made):
            made = graph.call_function(aten.view.default, (made, list(_value(node).shape)))
        made.meta = {**node.meta, "val": copy.meta["val"].view(_value(node).shape)}
    kept[node] = made
    return made


def is_pointwise(node: Node) -> bool:
    """Whether an operation makes each number of those in its place, of shapes that are broadcast."""
    if not isinstance(node.meta.get("val"), Tensor) or not node.all_input_nodes:
        return False
    return node.target in _POINTWISE or torch.Tag.pointwise in getattr(node.target, "tags", ())


def _mapped(arguments: Any, change: Callable[[Node], Any]) -> Any:
    return map_arg(arguments, change)


def _values(arguments: Any) -> Any:
    return map_arg(arguments, _value)


def _value(node: Any) -> Tensor:
    return node.meta["val"]


def _numel(node: Any) -> int:
    value = node.meta.get("val")
    return value.numel() if isinstance(value, Tensor) else 0


def _calls(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function"]
