"""Lanes as the last dimension: what a processor computes at once are the same numbers of neighbouring lanes.

A traced step has lanes first, and behind them whatever the model has: matrices of three by three, of which a processor
takes nine numbers where it could take sixteen, from places that are not beside each other. With lanes last, whatever is
done for one lane is done for sixteen. Here a graph that is to be compiled is written anew that way: tensors of shape
[K, …] become […, K]. Only the order of additions in a sum changes.

Graphs are as in :mod:`sweepvi.engine.lanes.graph_passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node, map_arg
from torch.utils._pytree import tree_map

from sweepvi.engine.lanes.compiled.broadcasts import is_pointwise
from sweepvi.engine.lanes.compiled.small_products import is_small
from sweepvi.private import without_numbers

aten = torch.ops.aten

_LIKE_FIRST: set[Any] = {
    aten.copy.default,
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
}
"""Operations whose result has the shape of their first argument, whatever that holds."""

_VIEWS: set[Any] = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
_REDUCTIONS: set[Any] = {
    aten.sum.dim_IntList,
    aten.amax.default,
    aten.amin.default,
    aten.mean.dim,
    aten.all.dim,
    aten.logsumexp.default,
}
_ALONG: dict[Any, int] = {
    aten.slice.Tensor: 1,
    aten.select.int: 1,
    aten.split_with_sizes.default: 2,
    aten.split.Tensor: 2,
    aten.unbind.int: 1,
    aten.cat.default: 1,
    aten.stack.default: 1,
    aten.cumsum.default: 1,
    aten.cumprod.default: 1,
}
"""Operations along one dimension → the place of its number among their arguments."""

_PRODUCTS: set[Any] = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default, aten.mv.default}


AT_ONCE = 16
"""Lanes, at least and in multiples: as many numbers are computed at once."""


def pays(graph: Graph, lanes: int) -> bool:
    """Whether lanes should come last: there are enough, and no products of a library, which has them first."""
    return lanes % AT_ONCE == 0 and all(
        node.target is aten.bmm.default and is_small(*map(_value, node.args))
        for node in graph.nodes
        if node.target in _PRODUCTS
    )


def with_lanes_last(graph: Graph, lanes: int) -> Graph:
    """A copy of a graph that computes with lanes last; it takes and returns tensors as :func:`moved` has them.

    Args:
        graph: of a step.
        lanes: how many there are.

    """
    return _Rewriting(lanes).of(graph)


def moved(tensor: Tensor, lanes: int, dim: int = 0) -> Tensor:
    """A tensor of shape [K, …] as […, K], in order, where K is how many lanes there are; others as they are.

    Args:
        tensor: any.
        lanes: K.
        dim: where the dimension of lanes is; those before it stay there.

    """
    return _in_order(tensor.movedim(dim, -1)) if has_lanes(tensor, lanes, dim) else tensor


def moved_back(tensor: Tensor, lanes: int, dim: int = 0) -> Tensor:
    """What :func:`moved` was given, if that had lanes at ``dim``: of shape […, K], as [K, …]."""
    has_them = tensor.dim() > dim + 1 and tensor.shape[-1] == lanes
    return _in_order(tensor.movedim(-1, dim)) if has_them else tensor


def _in_order(tensor: Tensor) -> Tensor:
    # Not ``contiguous``, to which strides of dimensions of one are of no account.
    return tensor.clone(memory_format=torch.contiguous_format)


def has_lanes(tensor: Tensor, lanes: int, dim: int = 0) -> bool:
    """Whether a tensor has as many entries as there are lanes at ``dim``, and dimensions behind that.

    It may be others than those of lanes; then it is another way to write the same numbers.
    """
    return tensor.dim() > dim + 1 and tensor.shape[dim] == lanes


class _Rewriting:
    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._graph = Graph()
        self._first: dict[Node, Node] = {}
        """Node → what has its value, laid out as it is."""
        self._last: dict[Node, Any] = {}
        """Node → what has its value with the first dimension last."""
        self._products: dict[Node, tuple[Node, list[int]]] = {}
        """Small product of a batch → what has it with lanes last, and its shape otherwise; the dimensions of the batch
        are apart."""

    def of(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            if node.op == "placeholder":
                self._take(node)
            elif node.op == "output":
                self._graph.output(map_arg(node.args[0], self._returned))
            else:
                found = self._with_lanes_last(node)
                if found is not None:
                    self._last[node] = found
        self._graph.eliminate_dead_code()
        return self._graph

    def _take(self, node: Node) -> None:
        place = self._graph.node_copy(node)
        if has_lanes(_value(node), self._lanes):
            place.meta = {**node.meta, "val": moved(_value(node), self._lanes)}
            self._last[node] = place
        else:
            self._first[node] = place

    def _returned(self, node: Node) -> Node:
        found = self.last(node) if has_lanes(_value(node), self._lanes) else self.first(node)
        value = _value(found)
        # A loop wants the strides that it has begun with, also of dimensions of one.
        if value.stride() == torch.empty(value.shape, device="meta").stride():
            return found
        return self._call(aten.clone.default, found, memory_format=torch.contiguous_format)

    def first(self, node: Node) -> Any:
        """What has a node's value."""
        if node not in self._first:
            if node in self._last and isinstance(_any(node), Tensor):
                self._first[node] = self._moved(self._last[node], -1, 0)
            else:
                target = aten.reshape.default if node.target in _VIEWS else node.target
                self._first[node] = self._call(
                    target, *self._each(node.args, self.first), **self._each(node.kwargs, self.first)
                )
        return self._first[node]

    def last(self, node: Node) -> Any:
        """What has a node's value with its first dimension last."""
        if node not in self._last:
            self._last[node] = self._moved(self.first(node), 0, -1)
        return self._last[node]

    def _moved(self, node: Node, source: int, place: int) -> Node:
        dims = list(range(_value(node).dim()))
        dims.insert(place % len(dims), dims.pop(source))
        return node if len(dims) < 2 else self._call(aten.permute.default, node, dims)

    @staticmethod
    def _each(arguments: Any, change: Callable[[Node], Any]) -> Any:
        return map_arg(arguments, change)

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        node = self._graph.call_function(target, args, kwargs)
        of, options = self._each((args, kwargs), _any)
        node.meta["val"] = tree_map(without_numbers, target(*of, **options))
        return node

    def _has_lanes(self, node: Any) -> bool:
        value = _any(node)
        return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == self._lanes

    def _with_lanes_last(self, node: Node) -> Any:
        """A node's value with lanes last; None where no rule says how."""
        if getattr(node.target, "__name__", "") == "getitem":
            source: Any = node.args[0]
            if source not in self._last:
                return None
            parts, place = self._last[source], int(node.args[1])  # pyright: ignore[reportArgumentType]
            return parts[place] if isinstance(parts, list) else self._call(node.target, parts, place)
        if is_pointwise(node) or node.target in _LIKE_FIRST:
            return self._pointwise(node)
        if node.target in _VIEWS:
            return self._view(node)
        if node.target is aten.bmm.default:
            self._product(node)
            return None
        source: Any = node.args[0]
        if node.target in (aten.cat.default, aten.stack.default):
            source = source[0]
        if not self._has_lanes(source) or _value(source).dim() < 2:
            return None
        rules: dict[Any, Callable[[Node], Any]] = {
            aten.expand.default: self._expanded,
            aten.permute.default: self._permuted,
            aten.transpose.int: self._transposed,
            aten.slice_backward.default: self._sliced_backward,
            aten.constant_pad_nd.default: self._padded,
            aten.index.Tensor: self._chosen,
            aten.index_put.default: self._put,
            aten.max.dim: self._largest,
        }
        rule = rules.get(node.target)
        if rule is not None:
            return rule(node)
        if node.target in _REDUCTIONS:
            return self._reduced(node)
        if node.target in _ALONG:
            return self._along(node)
        return None

    def _pointwise(self, node: Node) -> Any:
        value = _value(node)
        if not self._has_lanes(node) or value.dim() < 2:
            return None
        if any(0 < _value(each).dim() > value.dim() for each in node.all_input_nodes):
            return None

        def aligned(each: Node) -> Node:
            return self._aligned(each, value.dim())

        return self._call(node.target, *self._each(node.args, aligned), **self._each(node.kwargs, aligned))

    def _aligned(self, node: Node, dims: int) -> Node:
        """As an operand of so many dimensions, the first of which is last."""
        value = _value(node)
        if value.dim() == 0:
            return self.first(node)
        if value.dim() == dims:
            return self.last(node)
        missing = dims - value.dim()
        return self._call(aten.reshape.default, self.first(node), [1] * (missing - 1) + [*value.shape, 1])

    def _view(self, node: Node) -> Any:
        source: Any = node.args[0]
        shape = list(_value(node).shape)
        if source in self._products and self._products[source][1] == shape:
            return self._products[source][0]
        if not (self._has_lanes(source) and self._has_lanes(node)):
            return None
        return self._call(aten.reshape.default, self.last(source), [*shape[1:], shape[0]])

    def _product(self, node: Node) -> None:
        """Of views that have merged the dimensions of a batch."""
        left, right = map(self._unmerged, node.args[:2])
        if left is None or right is None or not is_small(*map(_value, node.args)):
            return
        batch = list(_value(left).shape[:-2])
        if list(_value(right).shape[:-2]) != batch:
            return
        total = None
        for term in range(_value(left).shape[-1]):
            # Of the left factor a column, of the right one a row; lanes are behind them.
            column = self._call(aten.slice.Tensor, self.last(left), len(batch), term, term + 1)
            row = self._call(aten.slice.Tensor, self.last(right), len(batch) - 1, term, term + 1)
            product = self._call(aten.mul.Tensor, column, row)
            total = product if total is None else self._call(aten.add.Tensor, total, product)
        assert total is not None
        self._products[node] = total, [*batch, *_value(node).shape[1:]]

    def _unmerged(self, node: Any) -> Node | None:
        if self._has_lanes(node):
            return node
        source = node.args[0] if node.op == "call_function" and node.target in _VIEWS else None
        if source is None or not self._has_lanes(source) or _value(source).shape[-2:] != _value(node).shape[-2:]:
            return None
        return source

    def _expanded(self, node: Node) -> Any:
        source: Any = node.args[0]
        shape = list(_value(node).shape)
        if len(shape) != _value(source).dim():
            return None
        return self._call(aten.expand.default, self.last(source), [*shape[1:], shape[0]])

    def _permuted(self, node: Node) -> Any:
        arguments: Any = node.args
        source, order = arguments[:2]
        dims = self._dims(node, order)
        if dims[0] != 0:
            return None
        return self._call(aten.permute.default, self.last(source), [*(dim - 1 for dim in dims[1:]), len(dims) - 1])

    def _transposed(self, node: Node) -> Any:
        source: Any = node.args[0]
        one, other = self._dims(node, node.args[1:3])
        if 0 in (one, other):
            return None
        return self._call(aten.transpose.int, self.last(source), one - 1, other - 1)

    def _sliced_backward(self, node: Node) -> Any:
        gradient, sizes, dim, *rest = node.args
        [dim] = self._dims(node, [dim])
        if dim == 0:
            return None
        assert isinstance(gradient, Node)
        assert isinstance(sizes, Sequence)
        return self._call(aten.slice_backward.default, self.last(gradient), [*sizes[1:], sizes[0]], dim - 1, *rest)

    def _padded(self, node: Node) -> Any:
        source, widths, *rest = node.args
        assert isinstance(source, Node)
        assert isinstance(widths, Sequence)
        if len(widths) >= 2 * _value(node).dim():
            return None
        return self._call(aten.constant_pad_nd.default, self.last(source), [0, 0, *widths], *rest)

    def _chosen(self, node: Node) -> Any:
        arguments: Any = node.args
        source, indices = arguments[:2]
        if not _is_second_alone(indices):
            return None
        return self._call(aten.index.Tensor, self.last(source), [self.first(indices[1])])

    def _put(self, node: Node) -> Any:
        arguments: Any = node.args
        source, indices, values, *rest = arguments
        if not _is_second_alone(indices) or _value(values).dim() != _value(source).dim():
            return None
        return self._call(aten.index_put.default, self.last(source), [self.first(indices[1])], self.last(values), *rest)

    def _reduced(self, node: Node) -> Any:
        source, dims, *rest = node.args
        assert isinstance(source, Node)
        places = self._dims(source, dims if isinstance(dims, Sequence) else [dims])
        if 0 in places or not places:
            return None
        moved = [place - 1 for place in places]
        return self._call(
            node.target, self.last(source), moved if isinstance(dims, Sequence) else moved[0], *rest, **node.kwargs
        )

    def _largest(self, node: Node) -> Any:
        if any(user.args[1] != 0 for user in node.users):
            return None
        source: Any = node.args[0]
        [place] = self._dims(source, [node.args[1]])
        if place == 0:
            return None
        return [self._call(aten.amax.default, self.last(source), [place - 1], *node.args[2:])]

    def _along(self, node: Node) -> Any:
        args: list[Any] = list(node.args)
        place = _ALONG[node.target]
        several = isinstance(args[0], list | tuple)
        sources = args[0] if several else [args[0]]
        if not all(map(self._has_lanes, sources)) or len({_value(each).dim() for each in sources}) != 1:
            return None
        given = args[place] if len(args) > place else 0
        dims = _value(sources[0]).dim() + (node.target is aten.stack.default)
        dim = given % dims
        if dim == 0:
            return None
        moved = [self.last(each) for each in sources]
        args = [*args[:place], dim - 1, *args[place + 1 :]]
        return self._call(node.target, moved if several else moved[0], *args[1:], **node.kwargs)

    def _dims(self, node: Node, dims: Any) -> list[int]:
        return [dim % _value(node).dim() for dim in dims]


def _is_second_alone(indices: Any) -> bool:
    """Whether entries of a tensor are chosen along its second dimension, and no other."""
    return len(indices) == 2 and indices[0] is None and _value(indices[1]).dim() == 1


def _value(node: Any) -> Tensor:
    return node.meta["val"]


def _any(node: Any) -> Any:
    return node.meta.get("val")
