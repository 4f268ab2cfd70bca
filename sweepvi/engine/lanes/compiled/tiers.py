"""When a cohort's steps go from the traced graph to machine code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sweepvi.engine.lanes.compiled.chunk import Chunk, chunk_of
from sweepvi.engine.lanes.compiled.compilation import Compilation, CompilationError
from sweepvi.engine.lanes.compiled.program import ChunkProgram
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.settings import LaneSettings

WORTH_COMPILING = 30.0
"""Seconds that the traced steps of a cohort must take, by :func:`estimated_seconds`, for it to be compiled unasked."""

MOST_NODES = 3000
"""Operations of a step, above which compiling takes minutes."""

_SECONDS_PER_NODE, _SECONDS_PER_NUMBER = 1.6e-6, 0.5e-9


def estimated_seconds(graph: StepGraph) -> float:
    """What a traced step takes, roughly: the calls of its operations, and the numbers that they compute.

    No clock is read: whether a cohort is compiled must not depend on what else the machine does.
    """
    return graph.node_count * _SECONDS_PER_NODE + graph.numbers * _SECONDS_PER_NUMBER


class MiscompiledError(Exception):
    """Machine code has other results than the graph that it was made of."""


class Tiers:
    """Decides which steps of a cohort are machine code.

    Args:
        settings: of ``compile`` and ``compiled_from``.
        graph: the traced step.
        steps: that the cohort is to take, all in all.

    """

    def __init__(self, settings: LaneSettings, graph: StepGraph, steps: int) -> None:
        self.compiled_from: int | None = None
        """The step from which machine code is used."""
        self.note = ""
        """Why it is not, though it was to be."""
        self.undecided = self._wanted(settings, graph, steps)
        """Whether it may be used later."""
        self._due = 0 if settings.compile == "always" else None
        if settings.compiled_from is not None:
            self._due = settings.compiled_from
        self._program: ChunkProgram | None = None
        self._compilation: Compilation | None = None

    def _wanted(self, settings: LaneSettings, graph: StepGraph, steps: int) -> bool:
        if settings.compile == "never":
            return False
        if settings.compiled_from is None and settings.compile == "auto":
            return graph.node_count <= MOST_NODES and estimated_seconds(graph) * steps >= WORTH_COMPILING
        if graph.node_count > MOST_NODES:
            self.note = f"steps are not compiled: they are of {graph.node_count} operations, more than {MOST_NODES}"
        return graph.node_count <= MOST_NODES

    def length(self, step: int, length: int) -> int:
        """How many of ``length`` steps after ``step`` can be taken before it is to be decided again."""
        return length if not self.undecided or self._due is None or self._due <= step else min(length, self._due - step)

    def chunk(self, step: int, waiting: Callable[[], bool], program: Callable[[], ChunkProgram]) -> Chunk | None:
        """Machine code that is new: to be checked, and then told to :meth:`use` or :meth:`refuse`.

        Args:
            step: that the cohort is at.
            waiting: whether to wait for the compiler, if its result is to be used from here on; asked again and again.
            program: what is to be compiled; asked for once at most.

        """
        if not self.undecided or (self._due is not None and step < self._due and self._compilation is not None):
            return None
        try:
            if self._compilation is None:
                self._program = program()
                self._compilation = Compilation(self._program)
            due = self._due is not None and step >= self._due
            package = self._compilation.package()
            while package is None and due and waiting():
                time.sleep(0.05)
                package = self._compilation.package()
            if package is None or (self._due is not None and not due):
                return None
            assert self._program is not None
            return chunk_of(package, self._program)
        except (CompilationError, OSError, RuntimeError) as error:
            self.refuse(f"steps are not compiled: {_one_line(error)}")
            return None

    def use(self, step: int) -> None:
        """Machine code is used from here on."""
        self.compiled_from, self.undecided = step, False
        self.close()

    def refuse(self, why: str) -> None:
        """Machine code is not used."""
        self.note, self.undecided = why, False
        self.close()

    def close(self) -> None:
        """Let go of the compiler."""
        if self._compilation is not None:
            self._compilation.stop()
        self._compilation = None


def differences(ours: Sequence[Tensor], theirs: Sequence[Tensor], lanes: Tensor, lane_dim: int, floor: float) -> Tensor:
    """The largest difference of each lane between results of machine code and those of the graph: float64, shape [K].

    It is relative to the largest number of a lane in each tensor, and infinite where one of both is not a number.
    Raises ``MiscompiledError`` if whole numbers differ.

    Args:
        ours: of machine code.
        theirs: of the graph.
        lanes: which are compared: bool, shape [K]; the others do not differ.
        lane_dim: which dimension of all tensors is that of lanes.
        floor: added to what a difference is relative to.

    """
    found = torch.zeros(len(lanes), dtype=torch.float64, device=lanes.device)
    if not lanes.any():
        return found
    for one, other in zip(ours, theirs, strict=True):
        one, other = (each.movedim(lane_dim, 0)[lanes].reshape(int(lanes.sum()), -1) for each in (one, other))
        if not one.dtype.is_floating_point:
            if not torch.equal(one, other):
                raise MiscompiledError("machine code takes other steps")
            continue
        if not one.shape[1]:
            continue
        one, other = one.double(), other.double()
        size = torch.nan_to_num(other.abs(), 0.0, 0.0, 0.0).amax(-1, keepdim=True)
        apart = torch.nan_to_num((one - other).abs() / (size + floor), torch.inf, torch.inf)
        apart[(one == other) | (one.isnan() & other.isnan())] = 0.0
        found[lanes] = torch.maximum(found[lanes], apart.amax(-1))
    return found


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
