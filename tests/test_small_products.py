"""Products of small matrices that a compiler can join to what is around them."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from sweepvi.engine.lanes.compiled.small_products import DECOMPOSITIONS

pytestmark = pytest.mark.filterwarnings("error")


def _traced(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.fx.GraphModule, bool]:
    graph = make_fx(torch.bmm, DECOMPOSITIONS)(left, right)
    return graph, any(node.target is torch.ops.aten.bmm.default for node in graph.graph.nodes)


@pytest.mark.parametrize(("rows", "terms", "columns"), [(3, 3, 3), (1, 4, 2), (4, 1, 4), (2, 2, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_of_small_matrices_is_sums(rows: int, terms: int, columns: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(5, rows, terms, generator=generator, dtype=dtype)
    right = torch.randn(5, terms, columns, generator=generator, dtype=dtype)
    graph, called = _traced(left, right)
    assert not called
    torch.testing.assert_close(graph(left, right), torch.einsum("bik,bkj->bij", left, right))


@pytest.mark.parametrize(
    ("rows", "terms", "columns", "dtype"),
    [(3, 5, 3, torch.float32), (8, 4, 8, torch.float32), (3, 0, 3, torch.float32), (3, 3, 3, torch.bfloat16)],
)
def test_another_product_is_left_to_the_library(rows: int, terms: int, columns: int, dtype: torch.dtype) -> None:
    _, called = _traced(torch.zeros(2, rows, terms, dtype=dtype), torch.zeros(2, terms, columns, dtype=dtype))
    assert called


def test_a_sum_with_a_factor_is_two_operations():
    """Inductor makes one call of the product and the sum, and forgets the factor."""

    def penalized(left, right, weights):
        return torch.add(left @ right, weights, alpha=0.25) + weights

    tensors = torch.rand(3, 4), torch.rand(4, 2), torch.rand(3, 2)
    graph = make_fx(penalized, DECOMPOSITIONS)(*tensors)
    assert not any(node.kwargs for node in graph.graph.nodes)
    torch.testing.assert_close(graph(*tensors), penalized(*tensors))
