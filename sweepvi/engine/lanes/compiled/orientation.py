"""Products of matrices turned so that lanes come first.

Lanes of a regression are the columns of one product, ``(X Wᵀ)ᵀ``: what is made of it is read across. ``W Xᵀ`` is the
same, with each lane's numbers side by side.

Graphs are as in :mod:`sweepvi.engine.lanes.graph_passes`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, Node

from sweepvi.private import without_numbers

aten = torch.ops.aten


def turn_products(graph: Graph) -> None:
    """Take the transpose of a product as the product of the transposes; what is no longer used stays."""
    for node in list(graph.nodes):
        product = _transposed(node)
        if product is None or product.target is not aten.mm.default or len(product.users) != 1:
            continue
        left, right = product.args[:2]
        with graph.inserting_before(node):
            factors = (_turned(graph, right), _turned(graph, left))
            turned = graph.call_function(aten.mm.default, factors)
        turned.meta = {**node.meta, "val": without_numbers(node.meta["val"].contiguous())}
        node.replace_all_uses_with(turned)


def _turned(graph: Graph, node: Any) -> Node:
    source = _transposed(node)
    if source is not None:
        return source
    turned = graph.call_function(aten.permute.default, (node, [1, 0]))
    turned.meta = {**node.meta, "val": node.meta["val"].permute(1, 0)}
    return turned


def _transposed(node: Any) -> Node | None:
    """What a node, a matrix, is the transpose of."""
    if node.op != "call_function" or node.target not in (aten.t.default, aten.permute.default, aten.transpose.int):
        return None
    source, *dims = node.args
    if node.meta["val"].dim() != 2:
        return None
    stays = node.target is aten.permute.default and [dim % 2 for dim in dims[0]] == [0, 1]
    stays |= node.target is aten.transpose.int and (dims[0] - dims[1]) % 2 == 0
    return None if stays else source
