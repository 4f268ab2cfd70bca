"""Writes into tensors of a traced graph, made into new tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg

aten = torch.ops.aten

_OF_THE_SHAPE = {aten.squeeze_.default, aten.squeeze_.dim, aten.squeeze_.dims, aten.unsqueeze_.default, aten.t_.default}
"""Operations that write into no number: a tensor that shares memory with theirs stays as it is."""


def without_simple_writes(graph: Graph) -> None:
    """Replace what writes into a tensor of its own, of which there is no other view, by what returns a new one.

    Other writes stay. ``torch.func.functionalize`` can do all, at the price of tracing the whole graph again.
    """
    for node in list(graph.nodes):
        functional = _functional(node)
        if functional is None or not _is_its_own(node) or not _looks_alike(node, functional):
            continue
        written = node.args[0]
        following = set(_after(node))
        written.replace_all_uses_with(node, following.__contains__)
        node.target = functional


def _after(node: Node) -> Iterator[Node]:
    while node.next.op != "root":
        node = node.next
        yield node


def _functional(node: Node) -> Any:
    """The operation that returns what a node writes; None if it writes nothing, or there is none."""
    target: Any = node.target
    if node.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in target._schema.arguments]
    packet = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    if writes != [True] + [False] * (len(writes) - 1) or not target._schema.name.endswith("_"):
        return None
    return getattr(packet, target._overloadname, None)


def _is_its_own(node: Node) -> bool:
    """Whether what a node writes into was made by an operation, and nothing shares the memory that it writes to."""
    written = node.args[0]
    if not isinstance(written, Node) or written.op != "call_function":
        return False
    return node.target in _OF_THE_SHAPE or not any(map(_is_view, {written, *written.users} - {node}))


def _looks_alike(node: Node, functional: Any) -> bool:
    """Whether an operation returns a tensor that looks like the one that a node writes into.

    It is done on zeros: what torch knows of operations on the device ``meta`` is partly in the compiler, which takes a
    second to import.
    """
    arguments, options = map_arg((node.args, node.kwargs), lambda source: _zeros(source.meta["val"]))
    try:
        found, value = functional(*arguments, **options), node.meta["val"]
    except RuntimeError:
        # Whole numbers are not divided by zero.
        return False
    return (found.shape, found.stride(), found.dtype) == (value.shape, value.stride(), value.dtype)


def _zeros(value: Tensor) -> Tensor:
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).zero_()


def _is_view(node: Node) -> bool:
    """Whether a node's result may share memory with what it is made of."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or node.target is aten._unsafe_view.default:
        return node.op == "call_function"
    return any(returned.alias_info is not None for returned in schema.returns)
