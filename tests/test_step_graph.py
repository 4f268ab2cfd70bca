"""A traced step gives the bits of the function that it was traced from, with less to do.

But for sums of products, which are in ``test_graph_rewrites.py``: here, they are left apart.
"""

from __future__ import annotations

import pytest
import torch

from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.replay import same_bits

K, D = 3, 4


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(K, D, generator=generator), torch.zeros(K, 1, dtype=torch.float64)], [
        torch.randn(K, D, generator=generator)
    ]


def step_of(rate, data):
    def step(x, count, noise):
        loc = x + torch.tensor(1.0).exp() * noise
        grad = (loc - data).detach() / data.exp().log1p() + (loc - data) * 1.0
        grad = grad.masked_fill_(grad > 2, 0.5)
        after = torch.where(count < 3, x - rate.to(x.dtype) * (1 - rate).to(x.dtype) * grad, x)
        return [after, count + 1], [(grad**2).sum(-1), (grad**2).sum(-1).view(K, 1)]

    return step


def traced(held=True):
    rate, data = torch.full((K, 1), 0.1, dtype=torch.float64), torch.linspace(-1, 1, D)
    step = step_of(rate, data)
    return StepGraph.traced(step, *inputs(), held=[rate] if held else [], differentiable=True), step, rate, data


def demand_equal(graph, step, state, given):
    for _ in range(5):
        found, expected = graph(state, given), step(*state, *given)
        for ours, theirs in zip(found, expected, strict=True):
            assert all(same_bits(one, other) for one, other in zip(ours, theirs, strict=True))
        state = found[0]


def test_replayed_steps_have_the_functions_bits_on_other_values_too():
    graph, step, _, _ = traced()
    demand_equal(graph, step, *inputs())
    demand_equal(graph, step, *inputs(1))


def test_values_that_are_not_finite_and_negative_zeros_pass_through():
    def step(x, given):
        return [(x + 0.0) * 1.0 - 0.0], [x / 1.0 + given * 0.0]

    x, given = torch.tensor([[0.0, -0.0, float("inf"), float("-inf"), float("nan")]]), torch.ones(1, 5)
    graph = StepGraph.traced(step, [x], [given], differentiable=True)
    demand_equal(graph, step, [x], [given])
    # x + 0 is no x where that is -0: it has to stay.
    assert graph.node_count == 3


def test_a_tensor_that_is_handed_in_twice_is_two_inputs():
    def step(x, slot, given):
        return [x + given, slot * 2 + x], [slot - given]

    same = torch.ones(3)
    graph = StepGraph.traced(step, [same, same], [same])
    demand_equal(graph, step, [same, same], [same])


def test_a_fault_in_the_graph_shows():
    graph, step, _, _ = traced()
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.sub.Tensor:
            node.target = torch.ops.aten.add.Tensor
    with pytest.raises(AssertionError):
        demand_equal(graph, step, *inputs())


def test_what_is_repeated_or_known_is_not_computed_in_a_step():
    def step(x, given):
        data = torch.arange(4.0)
        return [x + (given * given).detach()], [given * given + data.exp()]

    graph = StepGraph.traced(step, [torch.ones(4)], [torch.ones(4)])
    assert graph.node_count == 3
    assert len(graph.constants) == 1


def test_held_tensors_can_be_replaced_and_others_are_never_written_as_numbers():
    graph, _, rate, data = traced()
    graph.hold([torch.full_like(rate, 0.3)])
    demand_equal(graph, step_of(torch.full_like(rate, 0.3), data), *inputs())
    graph, _, rate, data = traced(held=False)
    with pytest.raises(AssertionError):
        demand_equal(graph, step_of(torch.full_like(rate, 0.3), data), *inputs())


def test_inputs_stay_as_they_are():
    graph, _, _, data = traced()
    state, given = inputs()
    before = [tensor.clone() for tensor in (*state, *given, data)]
    graph(state, given)
    assert all(same_bits(one, other) for one, other in zip((*state, *given, data), before, strict=True))


def test_random_numbers_that_are_not_handed_in_are_refused():
    def step(x, given):
        return [x + torch.rand_like(x)], [given]

    with pytest.raises(ValueError, match="random"):
        StepGraph.traced(step, [torch.ones(2)], [torch.ones(2)])


def test_a_state_of_other_length_is_refused():
    with pytest.raises(ValueError, match="returned 0 tensors of 1"):
        StepGraph.traced(lambda x, given: ([], [x + given]), [torch.ones(2)], [torch.ones(2)])


def test_memory_at_the_peak_counts_views_once_and_gives_back_what_is_done_with():
    def chain(x, given):
        for _ in range(5):
            x = (x * given).view(2, 50).view(100)
        return [x], []

    size = 100 * 4
    graph = StepGraph.traced(chain, [torch.ones(100)], [torch.ones(100)])
    # Both inputs; and in the middle of the chain, one product and the next.
    assert graph.bytes_at_peak == 4 * size


class Cube(torch.autograd.Function):
    """A function with a derivative of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


@pytest.mark.parametrize("writes", [False, True])
def test_functions_with_derivatives_of_their_own(writes):
    def loss(x):
        y = Cube.apply(x)
        return (y.clone().mul_(2.0) if writes else y * 2.0).sum()

    def step(x, count, noise):
        gradient = torch.func.vmap(torch.func.grad(loss))(x + noise)
        return [x - 0.01 * gradient, count + 1], [gradient.sum(-1)]

    state, given = inputs()
    demand_equal(StepGraph.traced(step, state, given, differentiable=True), step, state, given)
