"""A trace is the graph that ``make_fx`` makes, and does what the function does."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functionalize, grad, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import sweepvi
from sweepvi.engine.lanes import graph as graphs
from sweepvi.engine.lanes.replay import same_bits
from sweepvi.engine.lanes.tracing import ValueReadError, is_traced, traced

DATA = torch.linspace(-1.0, 1.0, 4)
NUMBER = torch.tensor(-1.0)
ROWS_OF_DATA = torch.arange(12.0).view(3, 4)


@dataclass(frozen=True)
class Row:
    """A function of two tensors of shape [3, 4]."""

    name: str
    function: Callable[[Tensor, Tensor], list[Tensor]]


def loss(x: Tensor, y: Tensor) -> Tensor:
    return ((x - DATA).tanh() * y).logsumexp(-1) + torch.nn.functional.softplus(x).prod()


def written(x: Tensor, y: Tensor) -> list[Tensor]:
    z = x + y
    z[0] = 1.0
    z.mul_(2.0).squeeze_()
    return [z, x]


def many(x: Tensor, y: Tensor) -> list[Tensor]:
    first, _, last = x.unbind(0)
    values, places = y.sort(-1)
    return [torch.cat([first, last]), values, places, *y.split([1, 2], 0)]


def made(x: Tensor, y: Tensor) -> list[Tensor]:
    number = torch.tensor(2.0)
    number.add_(1.0)
    return [x * number + torch.arange(4.0), torch.zeros_like(y), y.new_full((2,), 3.0), DATA]


def decided(x: Tensor, y: Tensor) -> list[Tensor]:
    """By values that are the same in every call."""
    return [x if torch.tensor(2.0) + torch.tensor(1.0) > 1.0 and NUMBER.item() < 0.0 else y]


ROWS = [
    Row("derivatives of each", lambda x, y: [vmap(grad(loss))(x, y)]),
    Row("over two dimensions", lambda x, y: [vmap(lambda x: vmap(grad(loss), (None, 0))(x, y).mean(0))(x)]),
    Row("a Jacobian", lambda x, y: [vmap(jacrev(loss))(x, y)]),
    Row("forwards", lambda x, y: list(jvp(lambda x: vmap(grad(loss))(x, y), (x,), (y,)))),
    Row("products of matrices", lambda x, y: [vmap(lambda x, y: ROWS_OF_DATA @ (x * y))(x, y), x @ y.T]),
    Row("several results", many),
    Row("writes", written),
    Row("writes made into new tensors", lambda x, y: functionalize(written)(x, y)),
    Row("what is made inside", made),
    Row("decided by what stays", decided),
    Row("the same twice", lambda x, y: [x, x, y + DATA + DATA]),
    Row("a network", lambda x, y: [torch.nn.functional.linear(x, ROWS_OF_DATA), y.detach().clone()]),
    Row("random numbers", lambda x, y: [x + torch.randn(3, 4), torch.bernoulli(y.sigmoid())]),
]


def operations(graph: Any) -> list[Any]:
    """What is called that gives tensors, of what shapes and types; of several results, those that are used."""
    found = []
    for node in graph.nodes:
        if node.op != "call_function" or (node.target is operator.getitem and not node.users):
            continue
        value = node.meta.get("val")
        values = [each for each in (value if isinstance(value, tuple | list) else [value]) if isinstance(each, Tensor)]
        # Of torch's trace, tensors themselves have a device; of ours, the node that is one.
        device = node.meta.get("device", values[0].device if values else None)
        alone = isinstance(value, Tensor)
        looks = [(each.shape, each.stride(), each.dtype, device if alone else None) for each in values]
        numbers = [place for place in node.args if isinstance(place, int | float)]
        if looks:
            found.append((node.target, looks, numbers, dict(node.kwargs)))
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_graph_is_that_of_make_fx(row: Row) -> None:
    inputs = torch.rand(3, 4), torch.rand(3, 4)
    found = operations(traced(row.function, inputs).graph)
    with torch.no_grad():
        assert found == operations(make_fx(row.function)(*inputs).graph)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_does_what_the_function_does_on_other_values_too(row: Row) -> None:
    found = traced(row.function, [torch.rand(3, 4), torch.rand(3, 4)])
    with torch.no_grad():
        for seed in range(3):
            torch.manual_seed(seed)
            x, y = torch.randn(3, 4), torch.randn(3, 4)
            both = []
            for function in (found, row.function):
                torch.manual_seed(seed)
                both.append(function(x.clone(), y.clone()))
            assert all(same_bits(one, other) for one, other in zip(*both, strict=True))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: [x if x.sum() > 0 else y],
        lambda x, y: [x * (y.max() + DATA[0]).item()],
        lambda x, y: [x * DATA.exp().sum().item()],
        lambda x, y: [x + float(torch.rand(()))],
    ],
)
def test_what_depends_on_values_is_refused(function: Any) -> None:
    with pytest.raises(ValueReadError, match="data-dependent"):
        traced(function, [torch.rand(3, 4), torch.rand(3, 4)])


def test_the_steps_of_a_fit_are_those_that_make_fx_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def both(function: Any, inputs: Any) -> Any:
        found = traced(function, inputs)
        if not isinstance(function, torch.nn.Module):
            compared.append((operations(found.graph), operations(make_fx(function)(*inputs).graph)))
        return found

    monkeypatch.setattr(graphs, "traced", both)
    how = {"engine": {"name": "lanes", "restarts": 2, "steps": 3}, "dtype": "float64"}
    sweepvi.fit("eight_schools", guide="auto_real_nvp", estimator={"name": "stl", "num_particles": 4}, **how)
    assert len(compared) >= 2
    for ours, theirs in compared:
        assert len(ours) > 200
        assert ours == theirs


def test_what_is_traced_can_tell() -> None:
    seen = []

    def function(x: Tensor, y: Tensor) -> list[Tensor]:
        seen.append(is_traced())
        return [x + y]

    def fails(x: Tensor) -> list[Tensor]:
        raise KeyError(str(x.shape))

    x = torch.ones(2)
    function(x, x)
    traced(function, [x, x])
    make_fx(function)(x, x)
    with pytest.raises(KeyError):
        traced(fails, [x])
    function(x, x)
    assert seen == [False, True, True, False]
