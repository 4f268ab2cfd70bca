"""A traced graph made smaller without a change in any bit of its results.

Graphs here are flat and free of side effects: placeholders, calls of torch's own operations, one output. Every node's
``meta["val"]`` has its shape, strides and type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

aten = torch.ops.aten

FOLDED_BYTES = 1 << 20
"""What depends on no input of a graph is computed once if it is no larger than this, or than what it is made of."""

_UNCHANGED = {
    *(op.default for op in (aten.detach, aten.alias, aten.clone, aten.lift_fresh, aten.lift_fresh_copy, aten._to_copy)),
    *(op.default for op in (aten.view, aten._unsafe_view, aten.reshape, aten.expand, aten.permute, aten.contiguous)),
    *(aten.transpose.int, aten.squeeze.dim, aten.squeeze.dims, aten.slice.Tensor),
}
"""Operations whose result, where it looks like their first argument, is that argument."""

_FILLED: dict[Any, float] = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0, aten.new_zeros.default: 0.0}
_NEUTRAL: dict[Any, float] = {aten.mul.Tensor: 1.0, aten.div.Tensor: 1.0, aten.sub.Tensor: 0.0}
_ARITHMETIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def is_pure(graph: Graph) -> bool:
    """Whether nothing in it writes into a tensor or draws a random number."""
    return all(
        (
            isinstance(node.target, torch._ops.OpOverload)
            and not node.target._schema.is_mutable
            and torch.Tag.nondeterministic_seeded not in node.target.tags
        )
        or getattr(node.target, "__name__", "") == "getitem"
        for node in graph.nodes
        if node.op == "call_function"
    )


def without_unchanged(graph: Graph) -> None:
    """Drop operations that hand on what they are given."""
    for node in _calls(graph):
        [source] = node.args[:1] or [None]
        if not isinstance(source, Node):
            continue
        same = node.target in _UNCHANGED and _looks(node) == _looks(source)
        neutral = _NEUTRAL.get(node.target)
        if neutral is not None and len(node.args) == 2 and not isinstance(node.args[1], Node):
            same = node.args[1] == neutral and _looks(node) == _looks(source)
        if same:
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def without_repetitions(graph: Graph) -> None:
    """Compute the same of the same once."""
    seen: dict[Any, Node] = {}
    for node in _calls(graph):
        key = (node.target, _key(node.args), _key(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.erase_node(node)


def fixed_nodes(graph: Graph, fixed: Iterable[Node]) -> list[Node]:
    """Calls that depend on these placeholders alone, or on nothing, in order; see ``FOLDED_BYTES``."""
    found = dict.fromkeys(fixed)
    before = len(found)
    for node in _calls(graph):
        value = node.meta.get("val")
        sizes = [_bytes(source.meta.get("val")) for source in node.all_input_nodes]
        small = _bytes(value) <= max([FOLDED_BYTES, *sizes])
        if small and (node.target in _FILLED or all(source in found for source in node.all_input_nodes)):
            found[node] = None
    return list(found)[before:]


def extracted(graph: Graph, fixed: list[Node], inputs: list[Node], wanted: list[Node]) -> GraphModule:
    """The part of a graph that computes ``wanted`` of ``inputs``, by way of ``fixed``."""
    part = Graph()
    copies: dict[Node, Node] = {}
    for node in inputs:
        copies[node] = part.node_copy(node)
    for node in fixed:
        if node.target in _FILLED:
            value = node.meta["val"]
            options = {"dtype": value.dtype, "device": node.meta["device"]}
            copies[node] = part.call_function(aten.full.default, (list(value.shape), _FILLED[node.target]), options)
        else:
            copies[node] = part.node_copy(node, lambda source: copies[source])
        copies[node].meta = dict(node.meta)
    part.output([copies[node] for node in wanted])
    part.eliminate_dead_code(lambda node: node.op == "placeholder" or node.is_impure())
    return GraphModule(torch.nn.Module(), part)


def with_numbers(graph: Graph, values: Mapping[Node, Tensor]) -> None:
    """Write a number where arithmetic takes a tensor whose elements are all that number."""
    numbers = {node: number for node, tensor in values.items() if (number := _uniform(tensor)) is not None}
    for node in _calls(graph):
        if node.target not in _ARITHMETIC or len(node.args) != 2 or node.kwargs:
            continue
        left, right = node.args
        if left in numbers and node.target in (aten.mul.Tensor, aten.add.Tensor):
            left, right = right, left
        if not isinstance(left, Node) or right not in numbers or left in numbers:
            continue
        result, source = node.meta["val"], left.meta["val"]
        # A number neither widens the result's shape nor its type, and so must not have.
        if result.dtype == source.dtype and result.shape == source.shape and result.dtype.is_floating_point:
            node.args = (left, numbers[right])


def _calls(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _looks(node: Node) -> Any:
    value = node.meta.get("val")
    return (value.shape, value.stride(), value.dtype, node.meta["device"]) if isinstance(value, Tensor) else object()


def _bytes(value: Any) -> int:
    if isinstance(value, tuple | list):
        return sum(map(_bytes, value))
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _key(value: Any) -> Any:
    """Equal for arguments that mean the same: ``1`` is not ``1.0`` nor ``True``, and ``0.0`` not ``-0.0``."""
    if isinstance(value, tuple | list):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return tuple((name, _key(value[name])) for name in sorted(value))
    return value if isinstance(value, Node) else (type(value), repr(value))


def _uniform(tensor: Tensor) -> float | None:
    """The finite number that all elements are, if there is one; a small tensor's only."""
    if not tensor.dtype.is_floating_point or tensor.numel() == 0:
        return None
    first = tensor[(0,) * tensor.dim()]
    number = float(first)
    same = math.isfinite(number) and bool((tensor == first).all())
    return number if same and bool((torch.signbit(tensor) == torch.signbit(first)).all()) else None


def peak_bytes(graph: Graph) -> int:
    """The most that is in memory at a time, inputs and outputs among it."""
    root: dict[Node, Node] = {}
    for node in graph.nodes:
        shares = _shared_argument(node)
        root[node] = root[shares] if shares is not None else node
    size: dict[Node, int] = {}
    last: dict[Node, int] = {}
    for place, node in enumerate(graph.nodes):
        for source in node.all_input_nodes:
            last[root[source]] = place
        if node.op != "output" and root[node] is node:
            size[node] = _bytes(node.meta.get("val"))
            last.setdefault(node, place)
    total = len(graph.nodes)
    lives = [(_given_back(node, last, total), node) for node in size]
    ends: dict[int, int] = {}
    for end, node in lives:
        ends[end] = ends.get(end, 0) + size[node]
    live = peak = sum(size[node] for node in size if node.op == "placeholder")
    for place, node in enumerate(graph.nodes):
        if node in size and node.op != "placeholder":
            live += size[node]
        peak = max(peak, live)
        live -= ends.get(place, 0)
    return peak


def _given_back(node: Node, last: Mapping[Node, int], total: int) -> int:
    """Where a node's memory is given back; a caller's is not."""
    return total if node.op == "placeholder" else last[node]


def _shared_argument(node: Node) -> Node | None:
    """The argument whose memory a node's result is a view of."""
    if getattr(node.target, "__name__", "") == "getitem" and node.op == "call_function":
        return node.args[0]  # pyright: ignore[reportReturnType]
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.returns or schema.returns[0].alias_info is None:
        return None
    return next((source for source in node.args if isinstance(source, Node)), None)
