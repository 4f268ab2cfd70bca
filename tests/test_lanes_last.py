"""A step with lanes last computes what it computes with lanes first."""

from __future__ import annotations

import pytest
import torch
from test_broadcasts import draws, run, step_of, traced
from torch.testing import assert_close

from sweepvi import registry
from sweepvi.engine.lanes.compiled.lanes_last import has_lanes, moved, moved_back, pays, with_lanes_last

aten = torch.ops.aten
LANES = 16


def rewritten(function, *tensors):
    """The graph with lanes last; results are compared."""
    step = traced(function, *tensors)
    found = with_lanes_last(step.graph, LANES)
    found.lint()
    compare(found, step.graph, *tensors, *step.constants)
    return found


def compare(found, graph, *given):
    expected = run(graph, *given)
    for own, theirs in zip(run(found, *(moved(each, LANES) for each in given)), expected, strict=True):
        assert own.is_contiguous()
        assert_close(own, moved(theirs, LANES), equal_nan=True)
        if has_lanes(theirs, LANES):
            assert_close(moved_back(own, LANES), theirs, equal_nan=True)


def laid_out(graph, target):
    """Shapes of what an operation computes."""
    return [tuple(node.meta["val"].shape) for node in graph.nodes if node.target is target]


put = aten.index_put.default
INDEX = torch.tensor([2, 0, 1, 1, 3])
FUNCTIONS = {
    "arithmetic": lambda x: (x.exp() * torch.arange(1.0, 6.0) - x[:, :1], torch.where(x > 1, x, 0.0)),
    "sums": lambda x: (x.sum(1), x.sum(-1, keepdim=True).log(), x.sum(), x.logsumexp(1)),
    "largest": lambda x: (x.max(1, keepdim=True).values, x.max(1).values, x.max(1).indices, x.amax(-1)),
    "of all lanes": lambda x: (x - x.mean(0), x.cumsum(0), x.sum(0)),
    "shapes": lambda x: (x.view(LANES, 5, 1).expand(LANES, 5, 4).reshape(LANES, 20), x.reshape(-1) + 1, x[:, None] + 1),
    "turned": lambda x: ((x[:, :, None] + x[:, None, :4]).transpose(1, 2), (x.t() + 1), x.t().exp().t()),
    "parts": lambda x: (torch.cat([x[:, 3:], x[:, :2]], 1), torch.stack(x.exp().unbind(1)[:3], 1), *x.split([2, 3], 1)),
    "padded": lambda x: (torch.nn.functional.pad(x.exp(), (1, 2)), x.exp().cumprod(1)),
    "chosen": lambda x: (x.exp()[:, INDEX], x.exp()[INDEX]),
    "put": lambda x: (
        torch.zeros(LANES, 5).index_put((torch.arange(LANES)[:, None], INDEX), x.exp(), accumulate=True),
    ),
    "types": lambda x: (x.double() + 1, (x > 1).any(-1), x.isfinite().all(1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations(name):
    rewritten(FUNCTIONS[name], draws(LANES, 5))


def test_what_is_computed_has_lanes_last():
    found = rewritten(lambda x: ((x.exp().log() * 2).sum(1),), draws(LANES, 5))
    assert laid_out(found, aten.exp.default) == [(5, LANES)]
    assert laid_out(found, aten.sum.dim_IntList) == [(LANES,)]
    assert laid_out(found, aten.permute.default) == []


def test_small_products_are_of_lanes_side_by_side():
    def chain(x):
        left, right = x.view(LANES, 5, 2, 3, 3).unbind(2)
        product = torch.matmul(left, right.transpose(-1, -2).exp())
        return product.log(), product.sum((1, 2, 3))

    found = rewritten(chain, draws(LANES, 5 * 2 * 9))
    assert laid_out(found, aten.bmm.default) == []
    assert laid_out(found, aten.log.default) == [(5, 3, 3, LANES)]


def test_it_does_not_pay_where_a_library_multiplies():
    assert pays(traced(lambda x, y: (torch.bmm(x, y),), draws(LANES, 3, 3), draws(LANES, 3, 3)).graph, LANES)
    assert not pays(traced(lambda x, y: (torch.bmm(x, y),), draws(LANES, 9, 9), draws(LANES, 9, 9)).graph, LANES)
    assert not pays(traced(lambda x, y: (x @ y,), draws(LANES, 3), draws(3, 40)).graph, LANES)


GUIDES = [name for name in registry.names("guide") if name not in ("custom", "own")]
STEPS = [*(("eight_schools", guide) for guide in GUIDES), ("radon", "auto_normal"), ("uk_drivers", "auto_normal")]


@pytest.mark.parametrize(("model", "guide"), STEPS)
def test_steps_of_shipped_models(model, guide):
    graph, given = step_of(model, LANES, guide)
    compare(with_lanes_last(graph, LANES), graph, *given)
