"""Operations taken together: fewer of them, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.replay import same_bits

SHAPE = (3, 4)


@dataclass(frozen=True)
class Row:
    """A function of three tensors, and how many operations are left of it."""

    name: str
    function: Callable[..., Tensor]
    operations: int
    exact: bool = True


ROWS = [
    Row("a sum with a negative", lambda x, y, z: x + -y, 1),
    Row("a negative in a sum", lambda x, y, z: -y + x, 1),
    Row("a difference from a negative", lambda x, y, z: x - y.neg(), 1),
    Row("a negative twice", lambda x, y, z: x.neg().neg().exp(), 1),
    Row("a number times a negative", lambda x, y, z: (-x) * 0.3, 1),
    Row("the negative of a product with a number", lambda x, y, z: -(x * 0.3), 1),
    Row("a share of a negative", lambda x, y, z: torch.add(x, -y, alpha=0.3), 1, exact=False),
    Row("a negative that is wanted", lambda x, y, z: (-x) * 0.3 + (-x).exp(), 3, exact=False),
    Row("a product added", lambda x, y, z: x + y * z, 1, exact=False),
    Row("a product first", lambda x, y, z: y * z + x, 1, exact=False),
    Row("a product subtracted", lambda x, y, z: x - y * z, 1, exact=False),
    Row("from a product", lambda x, y, z: y * z - x, 2),
    Row("a share of a product", lambda x, y, z: x - 0.3 * y * z, 1, exact=False),
    Row("a share added", lambda x, y, z: x + 0.3 * y, 1, exact=False),
    Row("a negative product", lambda x, y, z: x + (-y) * z, 1, exact=False),
    Row("a product that is wanted twice", lambda x, y, z: (x + y * z) * (y * z), 3),
    Row("a row times a column", lambda x, y, z: x + y[:, :1] * z[:1], 3, exact=False),
    Row("a product of whole numbers", lambda x, y, z: x + (y > 0).long() * (z > 0).long(), 6),
    Row("a wider product", lambda x, y, z: x.half() + y * z, 3),
    Row("shapes of shapes", lambda x, y, z: x.view(12).view(2, 6).unsqueeze(1).exp(), 2),
    Row("there and back", lambda x, y, z: x.unsqueeze(0).squeeze(0).exp(), 1),
    Row("shapes of what lies out of order", lambda x, y, z: x.t().unsqueeze(0).unsqueeze(-1).exp(), 4),
    Row("the order that there was", lambda x, y, z: x.permute(0, 1).exp(), 1),
    Row("an order twice", lambda x, y, z: (x.t() * y.t()).t().contiguous(), 4),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_fewer_operations_give_the_same(row: Row, dtype: torch.dtype) -> None:
    def step(x: Tensor, y: Tensor, z: Tensor) -> tuple[list[Tensor], list[Any]]:
        return [row.function(x, y, z)], []

    graph = StepGraph.traced(step, [torch.ones(SHAPE, dtype=dtype)], [torch.ones(SHAPE, dtype=dtype)] * 2)
    assert graph.node_count == row.operations
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        x, y, z = (torch.randn(SHAPE, generator=generator, dtype=dtype) for _ in range(3))
        found, expected = graph([x], [y, z])[0][0], row.function(x, y, z)
        if row.exact:
            assert same_bits(found, expected)
        else:
            roundings = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(found, expected, rtol=roundings, atol=roundings)
            assert found.stride() == expected.stride()


def test_what_is_not_finite_stays_so() -> None:
    def step(x: Tensor, y: Tensor, z: Tensor) -> tuple[list[Tensor], list[Any]]:
        return [x + -0.5 * y * z], [x - -(y * 2.0)]

    odd = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0])
    x, y, z = (each.flatten() for each in torch.meshgrid(odd, odd, odd, indexing="ij"))
    graph = StepGraph.traced(step, [torch.ones_like(x)], [torch.ones_like(x)] * 2)
    assert graph.node_count == 2
    (found_sum,), (found_difference,) = graph([x], [y, z])
    (total,), (difference,) = step(x, y, z)
    for found, expected in ((found_sum, total), (found_difference, difference)):
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0, equal_nan=True)
        whole = ~expected.isnan()
        assert torch.equal(torch.signbit(found)[whole], torch.signbit(expected)[whole])


def test_a_graph_that_is_to_be_differentiated_has_no_operation_that_cannot_be() -> None:
    """Torch's ``addcmul`` has ended the process in forward mode."""

    def step(x: Tensor, y: Tensor, z: Tensor) -> tuple[list[Tensor], list[Any]]:
        return [x + y * z], []

    inputs = [torch.ones(SHAPE)], [torch.ones(SHAPE)] * 2
    graph = StepGraph.traced(step, *inputs, differentiable=True)
    assert torch.ops.aten.addcmul.default not in {node.target for node in graph.graph.nodes}
    fused = StepGraph.traced(step, *inputs)
    assert torch.ops.aten.addcmul.default in {node.target for node in fused.graph.nodes}


def test_a_share_of_whole_numbers_stays_a_product_of_its_own() -> None:
    def step(x: Tensor, y: Tensor, z: Tensor) -> tuple[list[Tensor], list[Any]]:
        return [x + (y > 0).int() * 0.3 * z], []

    x, y, z = torch.ones(SHAPE), torch.linspace(-1.0, 1.0, 12).view(SHAPE), torch.full(SHAPE, 2.0)
    graph = StepGraph.traced(step, [x], [y, z])
    assert graph.node_count == 4
    torch.testing.assert_close(graph([x], [y, z])[0][0], step(x, y, z)[0][0])
