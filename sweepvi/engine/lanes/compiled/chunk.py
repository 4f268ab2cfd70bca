"""Some steps as machine code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sweepvi.engine.lanes.compiled.program import ChunkProgram
from sweepvi.engine.lanes.recording import Recording
from sweepvi.private import load_package


class Chunk(Protocol):
    """Takes steps."""

    length: int
    """How many, at most."""

    def __call__(
        self, state: Sequence[Tensor], same: Sequence[Tensor], rows: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The state after the steps, and what was seen in each, of shape [T, …].

        Args:
            state: before them.
            same: what is handed in for all of them.
            rows: what is handed into each, stacked.
            constants: of the traced step.

        """
        ...


def chunk_of(package: Path, program: ChunkProgram) -> Chunk:
    """Machine code that was made of a program."""
    return StepByStep(package, program) if program.stepwise else WholeChunk(package, program)


class WholeChunk:
    """The steps of a chunk in one call.

    Args:
        package: where it is.
        program: what it was made of.

    """

    def __init__(self, package: Path, program: ChunkProgram) -> None:
        self._run, self._states = load_package(package), program.states
        self.length = program.length

    def __call__(
        self, state: Sequence[Tensor], same: Sequence[Tensor], rows: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`Chunk`; the rows are as many as the chunk has steps."""
        with torch.no_grad():
            out = self._run([tensor.contiguous() for tensor in (*state, *same, *rows, *constants)])
        return out[: self._states], out[self._states :]


class StepByStep:
    """One step as machine code, recorded as a CUDA graph.

    Raises ``RuntimeError`` at the first call if it cannot be recorded.

    Args:
        package: where it is.
        program: what it was made of.

    """

    def __init__(self, package: Path, program: ChunkProgram) -> None:
        self._run, self._states, self._same = load_package(package), program.states, program.same
        self.length = program.length
        self._recording: Recording | None = None

    def __call__(
        self, state: Sequence[Tensor], same: Sequence[Tensor], rows: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """See :class:`Chunk`."""
        held = [*same, *constants]
        if self._recording is None:
            self._recording = Recording(self._step, state, [leaf[0] for leaf in rows], held)
        return self._recording(state, rows, held)

    def _step(
        self, state: Sequence[Tensor], row: Sequence[Tensor], held: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        same, constants = held[: self._same], held[self._same :]
        rows = [each.unsqueeze(0) for each in row]
        out = self._run([tensor.contiguous() for tensor in (*state, *same, *rows, *constants)])
        return out[: self._states], out[self._states :]
