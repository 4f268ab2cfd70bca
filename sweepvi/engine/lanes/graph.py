"""One step as a flat list of tensor operations: traced, made smaller, and replayed without an interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves

from sweepvi.engine.lanes.graph_passes import (
    extracted,
    fixed_nodes,
    is_pure,
    peak_bytes,
    with_numbers,
    without_repetitions,
    without_unchanged,
)
from sweepvi.engine.lanes.graph_rewrites import with_fewer_shapes, with_fewer_signs, with_sums_of_products
from sweepvi.engine.lanes.graph_writes import without_simple_writes
from sweepvi.engine.lanes.replay import replayed
from sweepvi.engine.lanes.tracing import Traced, traced

StepFunction = Callable[..., tuple[list[Tensor], list[Tensor]]]
"""State and what is handed in, each tensor an argument → the state after it, and what is seen of the step."""


class StepGraph:
    """A traced step; make one with :meth:`traced`.

    Tensors that the function reads without being handed them are either fixed, such as data, or held: they may be
    others in the next call, such as a lane's hyperparameters. What depends on these two alone is computed when they
    change, and not in every step.
    """

    graph: Graph
    """Takes the state's tensors, those handed in, and ``constants``; returns state and seen."""
    constants: list[Tensor]
    """What depends on no state and nothing handed in; replaced by :meth:`hold`."""

    def __init__(
        self, graph: Graph, preparation: GraphModule, states: int, inputs: int, seen: int, held: list[Tensor]
    ) -> None:
        self.graph, self._preparation = graph, preparation
        self.states, self.inputs, self.seen = states, inputs, seen
        self._replay: Callable[..., Any] | None = None
        self.hold(held)

    @staticmethod
    def traced(
        function: StepFunction,
        state: Sequence[Tensor],
        given: Sequence[Tensor],
        held: Sequence[Tensor] = (),
        differentiable: bool = False,
    ) -> StepGraph:
        """The operations that a function does, for tensors of these shapes and types.

        Args:
            function: called with ``*state, *given``; free of side effects on them.
            state: tensors that it returns anew.
            given: tensors that are others in each step.
            held: tensors that it reads, the very objects; see :meth:`hold`.
            differentiable: whether the graph will be differentiated forwards, under which torch's ``addcmul`` is no
                option: it ends the process.

        """
        counts: list[int] = []

        def flat(*leaves: Tensor) -> list[Tensor]:
            after, seen = function(*leaves)
            counts[:] = len(after), len(seen)
            return [*after, *seen]

        with torch.no_grad():
            # A tensor that is handed in twice would be one input, for good; two views of it are two.
            leaves = [leaf.detach() for leaf in (*state, *given)]
            found = traced(flat, leaves)
            without_simple_writes(found.graph)
            if not is_pure(found.graph):
                # Writes into tensors become new tensors: repeated, moved or compiled, an operation is then the same.
                # From operations, because an autograd.Function has no such rule.
                found = traced(torch.func.functionalize(found), leaves)
            if counts[0] != len(state):
                raise ValueError(f"a step returned {counts[0]} tensors of {len(state)} in its state")
            graph, preparation = _split(found, len(state) + len(given), list(held), not differentiable)
            return StepGraph(graph, preparation, len(state), len(given), counts[1], list(held))

    @property
    def node_count(self) -> int:
        """Operations of a step."""
        return sum(node.op == "call_function" for node in self.graph.nodes)

    @property
    def numbers(self) -> int:
        """Numbers that the operations of a step compute, all together."""
        return sum(
            leaf.numel()
            for node in self.graph.nodes
            if node.op == "call_function"
            for leaf in tree_leaves(node.meta.get("val"))
            if isinstance(leaf, Tensor)
        )

    @property
    def bytes_at_peak(self) -> int:
        """The most memory that a step's tensors take at a time, inputs and outputs among them."""
        return peak_bytes(self.graph)

    @cached_property
    def function(self) -> GraphModule:
        """What replays do, as a function that can be transformed and differentiated."""
        return GraphModule(torch.nn.Module(), self.graph)

    def hold(self, held: Sequence[Tensor]) -> None:
        """Take other tensors, of the same shapes and types, in place of those that :meth:`traced` was told of."""
        with torch.no_grad():
            self.constants = list(self._preparation(*held))

    def __call__(self, state: Sequence[Tensor], given: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """One step; nothing is changed in place, and results may share memory with ``state``."""
        return self.on(state, given, self.constants)

    def steps(self, state: Sequence[Tensor], rows: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Several steps.

        Args:
            state: before them.
            rows: what is handed into each of them, stacked: shape [T, …].

        Returns:
            The state after them; what was seen of each, stacked.

        """
        leaves, seen = list(state), []
        for row in zip(*(each.unbind(0) for each in rows), strict=True):
            leaves, found = self(leaves, row)
            seen.append(found)
        return leaves, [torch.stack(column) for column in zip(*seen, strict=True)]

    def on(
        self, state: Sequence[Tensor], given: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """One step with these in place of ``constants``, of the same shapes and types."""
        with torch.no_grad():
            if self._replay is None:
                self._replay = replayed(self.graph, [*state, *given, *constants])
            out = self._replay(*state, *given, *constants)
        return out[: self.states], out[self.states :]


def _split(found: Traced, inputs: int, held: list[Tensor], fused: bool) -> tuple[Graph, GraphModule]:
    """The step's part of a graph, which takes constants after its inputs, and what computes these of ``held``."""
    graph = found.graph
    places = [node for node in graph.nodes if node.op == "placeholder"]
    tensors = dict(zip(places[inputs:], found.read, strict=True))
    if not is_pure(graph):
        raise ValueError("the step writes into tensors that are not its own, or draws random numbers")
    graph.eliminate_dead_code()
    without_unchanged(graph)
    without_repetitions(graph)
    constant = places[inputs:]
    changing = {node for node in constant if any(tensors[node] is tensor for tensor in held)}
    # What is known for good can be written as numbers.
    known = [node for node in constant if node not in changing]
    fixed = fixed_nodes(graph, known)
    values = dict(
        zip(
            [*known, *fixed],
            extracted(graph, fixed, known, [*known, *fixed])(*(tensors[node] for node in known)),
            strict=True,
        )
    )
    values = {node: value for node, value in values.items() if isinstance(value, Tensor)}
    with_numbers(graph, values)
    without_unchanged(graph)
    without_repetitions(graph)
    with_fewer_signs(graph)
    if fused:
        with_sums_of_products(graph)
    with_fewer_shapes(graph)
    without_unchanged(graph)
    without_repetitions(graph)
    graph.eliminate_dead_code()
    return _parted(graph, tensors, places[:inputs], constant, held)


def _parted(
    graph: Graph, tensors: dict[Node, Tensor], inputs: list[Node], constant: list[Node], held: list[Tensor]
) -> tuple[Graph, GraphModule]:
    fixed = fixed_nodes(graph, constant)
    outside = {*constant, *fixed}
    wanted = list(
        dict.fromkeys(
            source
            for node in graph.nodes
            if node not in outside
            for source in node.all_input_nodes
            if source in outside
        )
    )
    step = Graph()
    copies: dict[Node, Node] = {node: step.node_copy(node) for node in inputs}
    for number, node in enumerate(wanted):
        copies[node] = step.placeholder(f"constant_{number}")
        copies[node].meta = dict(node.meta)
    for node in graph.nodes:
        if node not in copies and node not in outside:
            copies[node] = step.node_copy(node, lambda source: copies[source])
    preparing = extracted(graph, fixed, constant, wanted)
    return step, _Prepared.of(preparing, tensors, constant, held)


class _Prepared(torch.nn.Module):
    """The constants of a step, of the tensors that are held."""

    part: Any
    places: Any

    @staticmethod
    def of(part: GraphModule, tensors: dict[Node, Tensor], constant: list[Node], held: list[Tensor]) -> Any:
        """With the tensors that stay for good in it."""
        numbers = [next((k for k, other in enumerate(held) if other is tensors[node]), None) for node in constant]
        found = _Prepared()
        found.part = part
        found.places = [
            (number, tensors[node] if number is None else None) for number, node in zip(numbers, constant, strict=True)
        ]
        return found

    def forward(self, *held: Tensor) -> list[Tensor]:
        return self.part(*(fixed if number is None else held[number] for number, fixed in self.places))
