"""Writes into tensors become new tensors, without tracing anew where that is simple."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.replay import same_bits


@dataclass(frozen=True)
class Row:
    """A function that writes into tensors, and whether its writes are simple ones."""

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    simple: bool


def own(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    before = z * 2.0
    z.masked_fill_(y > 0, 0.5)
    return before + z.exp()


def twice(x: Tensor, y: Tensor) -> Tensor:
    z = x.exp()
    z.mul_(y)
    z.add_(1.0)
    return z.sqrt()


def shape(x: Tensor, y: Tensor) -> Tensor:
    z = x.unsqueeze(0) * y
    part = z[0]
    z.squeeze_(0)
    return z.exp() + part


def by_what_shares_its_elements(x: Tensor, y: Tensor) -> Tensor:
    z = x.exp()
    z.mul_(y[:1].expand(3, 4))
    return z.sqrt()


def not_of_zero(x: Tensor, y: Tensor) -> Tensor:
    z = (x * 10.0).int()
    z.remainder_((y > 0.0).int() + 2)
    return z * y


def by_a_view(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    z[0].mul_(2.0)
    return z.exp()


def seen_by_a_view(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    flat = z.view(-1)
    z.mul_(2.0)
    return flat.exp() + z.view(-1)


def seen_by_what_was_made_into_it(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    flat = torch.ops.aten._unsafe_view(z, [12])
    flat.mul_(2.0)
    return z.exp()


def into_another_type(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    z.mul_(y.double())
    return z.exp()


ROWS = [
    Row("a tensor of its own", own, True),
    Row("twice", twice, True),
    Row("a shape", shape, True),
    Row("by what shares its elements", by_what_shares_its_elements, True),
    Row("what cannot be done on zeros", not_of_zero, False),
    Row("through a view", by_a_view, False),
    Row("seen through a view", seen_by_a_view, False),
    Row("seen through a shape that is no view by name", seen_by_what_was_made_into_it, False),
    Row("into another type", into_another_type, False),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_step_is_the_functions(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = torch.func.functionalize, []

    def noted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return whole(*args, **kwargs)

    def step(x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Any]]:
        return [row.function(x, y)], []

    monkeypatch.setattr(torch.func, "functionalize", noted)
    graph = StepGraph.traced(step, [torch.ones(3, 4)], [torch.ones(3, 4)])
    assert (not calls) == row.simple
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        x, y = torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator) - 0.1
        kept = x.clone(), y.clone()
        assert same_bits(graph([x], [y])[0][0], row.function(x.clone(), y.clone()))
        assert all(torch.equal(one, other) for one, other in zip((x, y), kept, strict=True))
