"""What is rewritten for a compiler has the bits it had, and computes nothing of what is only repeated."""

from __future__ import annotations

import pytest
import torch
from lane_parity import recipe
from torch.fx import GraphModule

from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.compiled.broadcasts import without_broadcasts
from sweepvi.engine.lanes.compiled.orientation import turn_products
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.trial_run import start
from sweepvi.programs import reachable_modules

aten = torch.ops.aten
ROWS = 40


def traced(function, *tensors):
    return StepGraph.traced(lambda *leaves: ([], list(function(*leaves))), [], tensors)


def run(graph, *tensors):
    return GraphModule(torch.nn.Module(), graph)(*tensors)


def sizes(graph, target):
    return [tuple(node.meta["val"].shape) for node in graph.nodes if node.target is target]


def rewritten(function, *tensors):
    """The graph before and after; results are compared."""
    graph = traced(function, *tensors).graph
    found = without_broadcasts(graph)
    for own, theirs in zip(run(found, *tensors), run(graph, *tensors), strict=True):
        assert own.dtype == theirs.dtype
        assert own.shape == theirs.shape
        assert torch.equal(own, theirs)
    return graph, found


def draws(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) + 0.5


def test_what_is_made_of_expanded_tensors_is_made_of_few_numbers():
    def density(scale, x):
        wide = scale.unsqueeze(-1).expand(3, ROWS)
        return (x / (2 * wide**2) - wide.log()).sum(-1), wide.exp().sum()

    before, after = rewritten(density, draws(3), draws(3, ROWS))
    assert sizes(before, aten.log.default) == [(3, ROWS)]
    assert sizes(after, aten.log.default) == [(3, 1)]
    assert sizes(after, aten.pow.Tensor_Scalar) == [(3, 1)]
    assert sizes(after, aten.div.Tensor) == [(3, ROWS)]


def test_what_is_broadcast_far_is_in_memory_of_its_own():
    near, far = (
        rewritten(lambda scale, x: (x * scale.exp().unsqueeze(-1),), draws(3), draws(3, columns))[1]
        for columns in (4, ROWS)
    )
    assert sizes(near, aten.as_strided.default) == []
    assert sizes(far, aten.as_strided.default) == [(3,)]


def test_several_uses_share_what_is_in_memory():
    def twice(scale, x):
        size = scale.exp().unsqueeze(-1)
        return x * size, x + size

    assert sizes(rewritten(twice, draws(3), draws(3, ROWS))[1], aten.as_strided.default) == [(3,)]


def test_what_is_put_in_another_order_and_used_twice_is_in_memory():
    def both(x, order, few):
        moved, chosen = x[order], x[few]
        return moved.sum(0), moved.exp(), chosen.sum(0), chosen.exp()

    before, after = rewritten(both, draws(3, ROWS), torch.tensor([2, 0, 1]), torch.tensor([0, 2]))
    assert sizes(before, aten.clone.default) == []
    assert sizes(after, aten.clone.default) == [(3, ROWS)]


def test_shapes_may_be_taken_of_what_is_laid_out_otherwise():
    def viewed(scale, x):
        wide = scale.unsqueeze(-1).expand(4, ROWS).exp()
        return wide.contiguous().view(2, 2 * ROWS), (wide + x.t()).reshape(-1)

    rewritten(viewed, draws(4), draws(ROWS, 4))


def test_types_stay():
    """Of a tensor without dimensions, arithmetic takes its type less seriously."""

    def mixed(number, x):
        return ((number.expand(ROWS).exp() + x),)

    rewritten(mixed, draws().double(), draws(ROWS))


def test_a_product_of_lanes_has_them_first():
    def products(x, weights, y):
        forward = (x @ weights.t()).t()
        return forward, (x.t() @ (y - forward).t()).t()

    tensors = draws(ROWS, 5), draws(3, 5), draws(3, ROWS)
    graph = traced(products, *tensors).graph
    before = run(graph, *tensors)
    assert sizes(graph, aten.mm.default) == [(ROWS, 3), (5, 3)]
    turn_products(graph)
    graph.eliminate_dead_code()
    graph.lint()
    assert sizes(graph, aten.mm.default) == [(3, ROWS), (3, 5)]
    torch.testing.assert_close(run(graph, *tensors), before)


def test_a_product_that_others_want_as_it_is_stays():
    tensors = draws(ROWS, 5), draws(3, 5)
    graph = traced(lambda x, weights: ((x @ weights.t()).t(), x @ weights.t()), *tensors).graph
    turn_products(graph)
    assert len(sizes(graph, aten.mm.default)) == 1


def step_of(model, lanes, guide="auto_normal"):
    """A step of a shipped model, and numbers for it."""
    small = {"name": model, "batch_size": 16, "hidden": [6], "latent": 2}
    programs = {"guide": "own", "model": small} if model == "digits_vae" else {"guide": guide, "model": model}
    made = recipe(**programs, engine={"steps": 1, "dtype": "float32"})
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        engine = start(made, isolation)
        found = captured(engine)
        entrant = Entrant.of(made, Start.of(engine), engine.optimization, found)
        cohort = Cohort(found, [entrant] * lanes, lanes, made.settings, 1)
        cohort.trace()
    graph = cohort.stepping.graph
    assert graph is not None
    leaves = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    given = [draws(*leaf.shape).to(leaf.dtype) for leaf in leaves]
    given[len(given) - len(graph.constants) :] = graph.constants
    return graph.graph, given


@pytest.mark.parametrize("model", ["eight_schools", "radon", "digits_vae", "uk_drivers"])
def test_steps_of_shipped_models_have_the_bits_they_had(model):
    graph, given = step_of(model, 3)
    before, after = run(graph, *given), run(without_broadcasts(graph), *given)
    for own, theirs in zip(after, before, strict=True):
        torch.testing.assert_close(own, theirs, rtol=0, atol=0, equal_nan=True)
