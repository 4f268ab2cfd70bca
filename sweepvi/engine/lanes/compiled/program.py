"""A chunk of steps as one program: the noise of all of them, then a scan over the traced step."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx

from sweepvi.engine.lanes.compiled.broadcasts import without_broadcasts
from sweepvi.engine.lanes.compiled.lanes_last import moved, moved_back, pays, with_lanes_last
from sweepvi.engine.lanes.compiled.loop_code import UnknownLoopError, without_allocations
from sweepvi.engine.lanes.compiled.orientation import turn_products
from sweepvi.engine.lanes.compiled.small_products import DECOMPOSITIONS
from sweepvi.private import compile_to_package, scan

_SOURCES = [
    Path(__file__),
    *(Path(__file__).parent / name for name in ("lanes_last.py", "loop_code.py", "small_products.py")),
]


@dataclass(frozen=True)
class Layout:
    """Of a dense tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        """That of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype, str(tensor.device))

    def example(self) -> Tensor:
        """A tensor of it, that shares memory with no other."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


@dataclass(frozen=True)
class ChunkProgram:
    """What is to be compiled."""

    step: str
    """As :func:`portable`: of state, what is handed in at one step, and constants; the state after it, and what is
    seen."""
    prepare: str
    """As :func:`portable`: makes what is handed in at each step, stacked, of what is handed into the chunk."""
    states: int
    """How many tensors the state has."""
    given: int
    """How many are handed into the chunk."""
    same: int
    """How many of these, the first, are not stacked: the same for all steps."""
    layouts: tuple[Layout, ...]
    """Of the program's arguments: state, what is handed into the chunk, constants."""
    length: int
    """Steps of the chunk."""
    stepwise: bool
    """Whether the machine code is one step, and not a loop over those of the chunk."""
    threads: int
    lanes_last: int = 0
    """How many lanes there are, if the step is one of :func:`with_lanes_last`; otherwise 0."""

    def key(self) -> str:
        """A hash of the program, and of all that decides which machine code is right for it."""
        parts = [
            *(path.read_text(encoding="utf-8") for path in _SOURCES),
            torch.__version__,
            _processor(),
            *sorted({_device(layout.device) for layout in self.layouts}),
            repr(self),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    def function(self) -> Callable[..., list[Tensor]]:
        """What becomes machine code, as a function of its tensors: the state after it, and what was seen.

        Of all steps of a chunk, what was seen is stacked.
        """
        states, given = self.states, self.given
        step, prepare = _function(self.step), _function(self.prepare)

        def one(*tensors: Tensor) -> list[Tensor]:
            # Results that are views, of a state say, would make scan refuse.
            return [tensor.clone() for tensor in step(*tensors)]

        def run(*tensors: Tensor) -> list[Tensor]:
            state, own, constants = tensors[:states], tensors[states : states + given], tensors[states + given :]
            if self.stepwise:
                return one(*state, *(rows[0] for rows in prepare(*own)), *constants)
            if not self.lanes_last:
                return list(scan(one, list(state), list(prepare(*own)), constants))
            last, back = partial(moved, lanes=self.lanes_last), partial(moved_back, lanes=self.lanes_last)
            rows = [last(row, dim=1) for row in prepare(*own)]
            out = scan(one, list(map(last, state)), rows, [last(each) for each in constants])
            return [*map(back, out[:states]), *(back(seen, dim=1) for seen in out[states:])]

        return run

    def compile(self, path: Path) -> None:
        """Write machine code to a file; see :func:`sweepvi.private.load_package` for its use."""
        example = [layout.example() for layout in self.layouts]
        with torch.no_grad():
            # Real tensors would take all steps of the chunk to trace it.
            graph = make_fx(self.function(), DECOMPOSITIONS, tracing_mode="fake")(*example)
            compile_to_package(graph, example, path, {"cpp.threads": self.threads}, _rewritten)


def _rewritten(source: str) -> str:
    try:
        return without_allocations(source)
    except UnknownLoopError:
        # Slower, and as right.
        return source


def portable(graph: Graph) -> str:
    """The code of a graph, by which it can be sent and kept.

    A pickled graph is traced anew where it is read, and what depends on no argument is then a tensor in it.
    """
    return graph.python_code("self").src


def step_code(graph: Graph, lanes: int) -> tuple[str, int]:
    """The code of a step, as :func:`portable`, made easy for a compiler for the processor.

    Args:
        graph: of the step.
        lanes: how many there are.

    Returns:
        The code, and what :attr:`ChunkProgram.lanes_last` is of it.

    """
    last = lanes if pays(graph, lanes) else 0
    rewritten = without_broadcasts(with_lanes_last(graph, lanes) if last else graph)
    turn_products(rewritten)
    rewritten.eliminate_dead_code()
    return portable(rewritten), last


def _function(source: str) -> Callable[..., list[Tensor]]:
    scope: dict[str, Any] = {"torch": torch, "device": torch.device, "inf": math.inf, "nan": math.nan}
    exec(compile(source, "<traced graph>", "exec"), scope)
    return partial(scope["forward"], None)


def _processor() -> str:
    """The kind of this machine's processor, and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import platform

        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _device(name: str) -> str:
    device = torch.device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
