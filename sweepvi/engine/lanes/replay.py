"""A flat graph as plain Python code: each operation one call, by the fastest way to it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from sweepvi.private import operation_of

aten = torch.ops.aten

_TENSOR_AND_NUMBER = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def replayed(graph: Graph, example: Sequence[Tensor]) -> Callable[..., Any]:
    """A function of a graph's placeholders that gives its output, at a fraction of what interpreting it costs.

    An operation is called through torch's Python function of its name where that gives the same bits on the example,
    which it was chosen by; else through torch's operator table, which takes twice as long.

    Args:
        graph: free of side effects.
        example: values of the placeholders.

    """
    return _Writer(graph, example).function()


class _Writer:
    def __init__(self, graph: Graph, example: Sequence[Tensor]) -> None:
        self.names: dict[str, Any] = {}
        self.lines: list[str] = []
        self.values: dict[Node, Any] = {}
        self.graph = graph
        self._last: dict[Node, list[Node]] = {}
        given = iter(example)
        seen: set[Node] = set()
        for node in reversed(graph.nodes):
            ending = [source for source in node.all_input_nodes if source not in seen]
            seen.update(ending)
            self._last[node] = ending
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(given)
            elif node.op == "call_function":
                self._call(node)
            else:
                self.lines.append(f"return {self._text(node.args[0])}")

    def function(self) -> Callable[..., Any]:
        inputs = [node.name for node in self.graph.nodes if node.op == "placeholder"]
        body = "\n        ".join(self.lines)
        bound = "".join(f"    {name} = names[{name!r}]\n" for name in self.names)
        source = f"def make(names):\n{bound}    def step({', '.join(inputs)}):\n        {body}\n    return step\n"
        scope: dict[str, Any] = {}
        exec(compile(source, "<traced step>", "exec"), scope)
        return scope["make"](self.names)

    def _call(self, node: Node) -> None:
        arguments, options = self._valued(node.args), self._valued(node.kwargs)
        value: Any = node.target(*arguments, **options)  # pyright: ignore[reportCallIssue]
        self.values[node] = value
        self.lines.append(f"{node.name} = {self._expression(node, arguments, options, value)}")
        freed = list(self._last[node])
        if node not in self._used():
            freed.append(node)
        if freed:
            self.lines.append(" = ".join([*(source.name for source in freed), "None"]))
        for source in freed:
            self.values.pop(source, None)

    def _used(self) -> set[Node]:
        if not hasattr(self, "_users"):
            self._users = {source for node in self.graph.nodes for source in node.all_input_nodes}
        return self._users

    def _expression(self, node: Node, arguments: Any, options: Any, value: Any) -> str:
        """The fastest of the ways to call a node's operation that gives what the operation itself does."""
        target: Any = node.target
        if target is operator.getitem:
            return f"{self._text(node.args[0])}[{node.args[1]}]"
        for callee, places in self._ways(node, arguments, value):
            try:
                found = callee(*self._valued(places), **options)
            except (TypeError, RuntimeError, ValueError, IndexError):
                continue
            if same_bits(found, value):
                return self._written(callee, places, node.kwargs)
        return self._written(operation_of(target), node.args, node.kwargs)

    def _ways(self, node: Node, arguments: Any, value: Any) -> list[tuple[Any, Any]]:
        target: Any = node.target
        name = target._schema.name.removeprefix("aten::")
        ways: list[tuple[Any, Any]] = []
        if target in _TENSOR_AND_NUMBER and len(arguments) == 2 and isinstance(arguments[1], int | float):
            # A number costs more than the sum: torch makes a tensor of it at every call.
            tensor = arguments[0]
            if isinstance(tensor, Tensor) and value.dtype == tensor.dtype and not isinstance(arguments[1], bool):
                constant = torch.tensor(arguments[1], dtype=value.dtype, device=value.device)
                ways.append((getattr(torch, name), (node.args[0], constant)))
        if target is aten._to_copy.default and set(node.kwargs) == {"dtype"} and isinstance(arguments[0], Tensor):
            return [(Tensor.to, (node.args[0], node.kwargs["dtype"]))]
        if target is aten.slice.Tensor and len(arguments) in (4, 3) and arguments[2] is not None:
            start = arguments[2] + (arguments[0].shape[arguments[1]] if arguments[2] < 0 else 0)
            ways.append((torch.narrow, (node.args[0], arguments[1], start, value.shape[arguments[1]])))
        for owner in (torch, torch._C._nn, Tensor):  # pyright: ignore[reportAttributeAccessIssue]
            if callable(way := getattr(owner, name, None)):
                ways.append((way, node.args))
        return ways

    def _written(self, callee: Any, places: Any, options: Any) -> str:
        written = [self._text(place) for place in places]
        written += [f"{name}={self._text(option)}" for name, option in options.items()]
        method = getattr(callee, "__objclass__", None)
        if method is not None and issubclass(Tensor, method):
            return f"{written[0]}.{callee.__name__}({', '.join(written[1:])})"
        return f"{self._bound(callee)}({', '.join(written)})"

    def _text(self, place: Any) -> str:
        if isinstance(place, Node):
            return place.name
        if isinstance(place, tuple | list):
            return f"[{', '.join(map(self._text, place))}]"
        if place is None or isinstance(place, bool | int):
            return repr(place)
        return self._bound(place)

    def _bound(self, thing: Any) -> str:
        name = f"_{len(self.names)}"
        for known, other in self.names.items():
            if other is thing:
                return known
        self.names[name] = thing
        return name

    def _valued(self, places: Any) -> Any:
        return map_arg(places, lambda node: self.values[node])


def same_bits(one: Any, other: Any) -> bool:
    """Whether two results are of one shape, layout and type, and equal to the last bit."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same_bits, one, other))
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return False
    if (one.shape, one.stride(), one.dtype, one.device) != (other.shape, other.stride(), other.dtype, other.device):
        return False
    return torch.equal(_bits(one), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    whole = {torch.float32: torch.int32, torch.float64: torch.int64, torch.float16: torch.int16}
    whole[torch.bfloat16] = torch.int16
    dense = tensor.contiguous()
    if dense.is_complex():
        dense = torch.view_as_real(dense)
    return dense.view(whole[dense.dtype]) if dense.dtype in whole else dense
