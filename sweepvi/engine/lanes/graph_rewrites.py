"""Operations of a traced graph taken together: most of a small step's time is the calls, whatever they compute.

Graphs are as in :mod:`sweepvi.engine.lanes.graph_passes`. What is no longer used stays, for dead code to be dropped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten

_OPPOSITE: dict[Any, Any] = {aten.add.Tensor: aten.sub.Tensor, aten.sub.Tensor: aten.add.Tensor}
_TIMES_NUMBER: set[Any] = {aten.mul.Scalar, aten.mul.Tensor}
_ONLY_SHAPES: set[Any] = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
}
"""Operations that, of a tensor whose numbers lie in order, change nothing but the shape."""


def with_fewer_signs(graph: Graph) -> None:
    """Let sums, differences and factors take the signs of what they are made of; no bit of a result changes."""
    for node in _calls(graph):
        if node.target in _TIMES_NUMBER:
            _take_sign_into_number(node)
        elif node.target is aten.neg.default:
            _negate_at_once(node)
        elif node.target in _OPPOSITE and len(node.args) == 2:
            _add_or_subtract(node)


def _take_sign_into_number(node: Node) -> None:
    number, source = _number(node), _negated(node.args[0])
    if number is not None and source is not None:
        node.args = (source, -number)


def _negate_at_once(node: Node) -> None:
    source: Any = node.args[0]
    if (inner := _negated(source)) is not None:
        node.replace_all_uses_with(inner)
    elif _is_call(source, _TIMES_NUMBER) and (number := _number(source)) is not None and _is_used_once(source):
        node.target, node.args = source.target, (source.args[0], -number)


def _add_or_subtract(node: Node) -> None:
    target: Any = node.target
    left, right = node.args
    if (source := _negated(right)) is not None:
        node.target, node.args = _OPPOSITE[target], (left, source)
        return
    source = _negated(left)
    if source is not None and target is aten.add.Tensor and not node.kwargs and isinstance(right, Node):
        node.target, node.args = aten.sub.Tensor, (right, source)


def with_fewer_shapes(graph: Graph) -> None:
    """Take each shape of numbers that lie in order straight from where they come from; no bit of a result changes."""
    origin: dict[Node, Node] = {}
    for node in _calls(graph):
        source = node.args[0] if node.args else None
        if node.target not in _ONLY_SHAPES or not isinstance(source, Node):
            continue
        first = origin.get(source, source)
        value, root = node.meta.get("val"), first.meta.get("val")
        if not (isinstance(value, Tensor) and isinstance(root, Tensor) and root.is_contiguous()):
            continue
        if root.view(value.shape).stride() == value.stride():
            origin[node] = first
            node.target, node.args, node.kwargs = aten.view.default, (first, list(value.shape)), {}


def with_sums_of_products(graph: Graph) -> None:
    """Compute ``a ± c·x·y`` as one operation, in one rounding less, where nothing else wants the product."""
    for node in _calls(graph):
        if node.target not in _OPPOSITE or len(node.args) != 2 or node.kwargs:
            continue
        terms: Any = node.args
        if not all(isinstance(term, Node) and _same_type(term, node) for term in terms):
            continue
        left, right = terms
        sign = 1.0 if node.target is aten.add.Tensor else -1.0
        if _is_product(right):
            _fuse(node, left, right, sign)
        elif sign > 0 and _is_product(left):
            _fuse(node, right, left, sign)


def _fuse(node: Node, term: Node, product: Node, factor: float) -> None:
    """``term + factor · product`` in place of a node."""
    factors: list[Any] = list(product.args)
    one, other = factors
    if isinstance(other, int | float):
        node.target, node.args, node.kwargs = aten.add.Tensor, (term, one), {"alpha": factor * other}
        return
    for place, each in enumerate(factors):
        if (
            _is_call(each, _TIMES_NUMBER)
            and (number := _number(each)) is not None
            and _same_type(product, each.args[0])
        ):
            factors[place] = each.args[0]
            factor *= number
            break
        if (source := _negated(each)) is not None:
            factors[place] = source
            factor = -factor
            break
    node.target, node.args, node.kwargs = aten.addcmul.default, (term, *factors), {"value": factor}


def _is_product(node: Node) -> bool:
    """Whether it is a product, of floating-point tensors or by a number, which only one other wants."""
    if not _is_call(node, _TIMES_NUMBER) or not _is_used_once(node) or not node.meta["val"].is_floating_point():
        return False
    return all(_same_type(place, node) for place in node.args if isinstance(place, Node))


def _same_type(one: Node, other: Node) -> bool:
    return one.meta["val"].dtype == other.meta["val"].dtype


def _number(node: Node) -> float | None:
    """What a tensor is multiplied with, if it is a number."""
    number: Any = node.args[1]
    return number if isinstance(number, int | float) and not isinstance(number, bool) else None


def _negated(node: Any) -> Node | None:
    """What a node is the negative of."""
    return node.args[0] if _is_call(node, {aten.neg.default}) else None


def _is_used_once(node: Node) -> bool:
    return len(node.users) == 1 and not any(user.op == "output" for user in node.users)


def _is_call(node: Any, targets: set[Any]) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def _calls(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function"]
