"""The steps of a cohort, chunk by chunk: by the traced graph, and by machine code from where that is ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweepvi.engine.lanes.compiled.chunk import Chunk
from sweepvi.engine.lanes.compiled.program import ChunkProgram, Layout, portable, step_code
from sweepvi.engine.lanes.compiled.tiers import MiscompiledError, Tiers, differences, estimated_seconds
from sweepvi.engine.lanes.denormals import denormals_are_zero
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.noise_modes import TRACEABLE, noise_of_steps
from sweepvi.engine.lanes.recording import Recording, recordable
from sweepvi.engine.lanes.step import LaneState, Seen, Step, StepInput
from sweepvi.engine.lanes.tracing import traced
from sweepvi.loading import message_of
from sweepvi.settings import LaneSettings

TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-7}
"""How far results of machine code may be from those of the graph after a chunk; a wrong gradient is farther."""

GROWN, FEW = 10, 1 / 16
"""A network amplifies roundings: where one turns a unit off, its lane is far from what it would have been. Some lanes
may be farther, then: so many times as many, and as far, as of the graph's that begin one rounding beside; this share of
all at most."""


AT_ONCE, SMALL = 8, 2e-3
"""Chunks of machine code that are run without a look in between, where a traced step takes so many seconds at most."""


@dataclass
class ChunkInput:
    """What is handed into T steps of K lanes."""

    seeds: Tensor
    """int64, shape [K]."""
    steps: Tensor
    """Steps that each lane has taken before each of these: int64, shape [T, K]."""
    rows: list[Tensor]
    """Minibatches: shape [T, taken] where lanes share them, else [T, K, taken]."""
    factors: list[list[Tensor]]
    """The schedules', by form and group: float64, shape [T, K, 1]."""
    until: Tensor
    """No lane takes a step after this one: float64, shape [T, 1, 1], or [T, K, 1] where each has its own."""

    def part(self, start: int, end: int) -> ChunkInput:
        """Some of the steps."""
        if (start, end) == (0, len(self.steps)):
            return self
        parts = pytree.tree_map(lambda leaf: leaf[start:end], (self.steps, self.rows, self.factors, self.until))
        return ChunkInput(self.seeds, *parts)


pytree.register_dataclass(ChunkInput)


@dataclass(frozen=True)
class Stop:
    """Where lanes stood after some of the steps that were taken at once."""

    arena: Tensor
    """Parameters, shape [K, D]."""
    done: Tensor
    """Steps taken: float64, shape [K, 1]."""
    steps: int
    """Since the stop before."""


Stepped: TypeAlias = tuple[LaneState, Seen, list[Stop]]
"""The state after some steps, what was seen in them, and where lanes stood in between and at the end."""


class Stepping:
    """Takes steps.

    Args:
        step: all lanes' step.
        settings: of noise and compiling.
        total: steps that will be taken, all in all.

    """

    def __init__(self, step: Step, settings: LaneSettings, total: int) -> None:
        self._step, self._settings, self._total = step, settings, total
        self.graph: StepGraph | None = None
        """The step as it was traced; None before :meth:`trace`."""
        self._tiers: Tiers | None = None
        self._code: Chunk | None = None
        self._small = False
        self._since: int | None = None
        self._recording: Recording | None = None
        self._may_record = True
        self._unrecorded = ""

    @property
    def compiled_from(self) -> int | None:
        """The step from which machine code is used; if there might yet be some, one that has not been taken."""
        if self._tiers is None:
            return None
        return self._total if self._tiers.undecided else self._tiers.compiled_from

    @property
    def switched_at(self) -> int | None:
        """The step from which machine code is used; None if it is not, so far."""
        return self._tiers.compiled_from if self._tiers is not None else self._settings.compiled_from

    def go_on(self, compiled_from: int | None) -> None:
        """Before tracing: use machine code from the step from which an earlier part of the same fits has."""
        if compiled_from is not None:
            self._settings, self._since = replace(self._settings, compiled_from=compiled_from), compiled_from

    @property
    def note(self) -> str:
        """Why there is no machine code, though it was to be used, or no CUDA graph."""
        of_tiers = self._tiers.note if self._tiers is not None else ""
        return "; ".join(filter(None, (of_tiers, self._unrecorded)))

    @property
    def wants_whole_chunks(self) -> bool:
        """Whether a chunk must be of full length, though fewer steps of it are taken."""
        return self._code is not None or (self._tiers is not None and self._tiers.undecided)

    def length(self, taken: int, length: int, whole: int) -> int:
        """How many of ``length`` steps, after ``taken``, can be taken at once; ``whole`` steps are a chunk."""
        chunks = AT_ONCE if self._code is not None and self._small else 1
        return min(chunks * whole, self._tiers.length(taken, length) if self._tiers is not None else length)

    def held(self) -> list[Tensor]:
        """What differs between lanes, and stays."""
        return [*self._step.update.tensors(), *self._step.numbers.tensors()]

    def hold(self) -> None:
        """Take note that lanes have other numbers."""
        if self.graph is not None:
            self.graph.hold(self.held())

    def noise(self, chunk: ChunkInput) -> StepInput:
        """What is handed into each step, stacked."""
        in_step = bool((chunk.steps == chunk.steps[:, :1]).all())
        return self._filled(chunk, chunk.steps[:, 0] if in_step else chunk.steps)

    def trace(self, state: LaneState, chunk: ChunkInput, taken: int) -> None:
        """Trace a step, after ``taken`` steps; whatever the program's own code raises is raised here."""
        given = pytree.tree_map(lambda leaf: leaf[0], self.noise(chunk.part(0, 1)))
        state_leaves, state_spec = pytree.tree_flatten(state)
        given_leaves, given_spec = pytree.tree_flatten(given)

        def flat(*leaves: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            before = pytree.tree_unflatten(list(leaves[: len(state_leaves)]), state_spec)
            after, seen = self._step(before, pytree.tree_unflatten(list(leaves[len(state_leaves) :]), given_spec))
            return pytree.tree_leaves(after), pytree.tree_leaves(seen)

        self._recording, self._may_record = None, True
        self.graph = StepGraph.traced(flat, state_leaves, given_leaves, self.held())
        self._tiers = Tiers(self._settings, self.graph, self._total - taken)

    def __call__(
        self,
        state: LaneState,
        chunk: ChunkInput,
        length: int,
        taken: int,
        waiting: Callable[[], bool],
    ) -> Stepped:
        """Take the first ``length`` steps of what is handed in.

        Args:
            state: before them.
            chunk: of whole chunks, see :attr:`wants_whole_chunks`.
            length: how many steps of it can change anything.
            taken: steps that the cohort has taken.
            waiting: see :meth:`Tiers.chunk`.

        """
        with denormals_are_zero():
            return self._stepped(state, chunk, length, taken, waiting)

    def _stepped(
        self, state: LaneState, chunk: ChunkInput, length: int, taken: int, waiting: Callable[[], bool]
    ) -> Stepped:
        if self._code is not None:
            return self._compiled(self._code, state, chunk, length)
        assert self._tiers is not None
        assert self.graph is not None
        code = self._tiers.chunk(taken, waiting, lambda: self._program(state, chunk))
        found = self._traced(state, chunk.part(0, length))
        if code is None:
            return found
        try:
            other = self._compiled(code, state, chunk, length)
            self._demand_equal(other, found, lambda: self._traced(_beside(state), chunk.part(0, length)))
        except (MiscompiledError, RuntimeError) as error:
            self._tiers.refuse(f"steps are not compiled: {error}")
            return found
        self._code, self._small = code, estimated_seconds(self.graph) < SMALL
        self._tiers.use(taken if self._since is None else self._since)
        return other

    def close(self) -> None:
        """Let go of a compiler."""
        if self._tiers is not None:
            self._tiers.close()

    def _filled(self, chunk: ChunkInput, steps: Tensor) -> StepInput:
        layout, stream = self._step.captured.draws.noise, self._step.together.noise_stream()
        noise = noise_of_steps(layout, self._settings.noise, chunk.seeds, steps, stream)
        return StepInput(noise, chunk.rows, chunk.factors, chunk.until)

    def _traced(self, state: LaneState, chunk: ChunkInput) -> Stepped:
        assert self.graph is not None
        leaves, spec = pytree.tree_flatten(state)
        rows = pytree.tree_leaves(self.noise(chunk))
        recording = self._recorded(leaves, rows)
        if recording is None:
            leaves, columns = self.graph.steps(leaves, rows)
        else:
            leaves, columns = recording(leaves, rows, self.graph.constants)
        after = pytree.tree_unflatten(leaves, spec)
        return after, _seen(columns), [Stop(after.arena, after.done, len(rows[0]))]

    def _recorded(self, leaves: list[Tensor], rows: list[Tensor]) -> Recording | None:
        """The step as a CUDA graph; None if it cannot be one."""
        assert self.graph is not None
        if self._recording is None and self._may_record:
            row = [each[0] for each in rows]
            self._may_record = False
            if recordable(leaves, row, self.graph.constants):
                if not self._step.together.ranks.recordable:
                    self._unrecorded = (
                        "steps are no CUDA graph: ranks speak through the host; distributed=nccl does not"
                    )
                    return None
                try:
                    self._recording = Recording(self.graph.on, leaves, row, self.graph.constants)
                except RuntimeError as error:
                    self._unrecorded = f"steps are no CUDA graph: {message_of(error, 200)}"
        return self._recording

    def _compiled(self, code: Chunk, state: LaneState, chunk: ChunkInput, length: int) -> Stepped:
        assert self.graph is not None
        leaves, spec = pytree.tree_flatten(state)
        places = pytree.tree_unflatten(range(len(leaves)), spec)
        columns, stops = [], []
        seeds, stacked = self._handed_in(chunk)
        for start in range(0, length, code.length):
            part = [leaf[start : start + code.length] for leaf in stacked]
            leaves, seen = code(leaves, seeds, part, self.graph.constants)
            columns.append(seen)
            stops.append(Stop(leaves[places.arena], leaves[places.done], min(code.length, length - start)))
        joined = [torch.cat(column)[:length] for column in zip(*columns, strict=True)]
        return pytree.tree_unflatten(leaves, spec), _seen(joined), stops

    def _handed_in(self, chunk: ChunkInput) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors that machine code is handed: those that are the same in all steps, and those that are stacked.

        The noise is among them if machine code cannot make that itself: some modes, and all on CUDA devices, for which
        the compiler has no code of it.
        """
        if not self._makes_noise(chunk):
            return [], pytree.tree_leaves(self.noise(chunk))
        return [chunk.seeds], pytree.tree_leaves((chunk.steps, chunk.rows, chunk.factors, chunk.until))

    def _stepwise(self, chunk: ChunkInput) -> bool:
        """Whether machine code is of one step: a CUDA device is told of each in a moment, by a recording."""
        assert self.graph is not None
        return recordable([chunk.seeds], chunk.rows, self.graph.constants)

    def _makes_noise(self, chunk: ChunkInput) -> bool:
        """Whether machine code makes the noise."""
        return self._settings.noise in TRACEABLE and not self._stepwise(chunk)

    def _program(self, state: LaneState, chunk: ChunkInput) -> ChunkProgram:
        assert self.graph is not None
        length, spec = len(chunk.steps), pytree.tree_flatten(chunk)[1]
        stepwise, makes_noise = self._stepwise(chunk), self._makes_noise(chunk)
        chunk = chunk.part(0, 1) if stepwise else chunk

        def prepare(*leaves: Tensor) -> list[Tensor]:
            if not makes_noise:
                return list(leaves)
            given = pytree.tree_unflatten(list(leaves), spec)
            return pytree.tree_leaves(self._filled(given, given.steps))

        seeds, stacked = self._handed_in(chunk)
        states, given = pytree.tree_leaves(state), [*seeds, *stacked]
        prepared = traced(prepare, given)
        if prepared.read:
            raise ValueError("the noise of a chunk reads a tensor that is not handed in")
        lanes = len(chunk.seeds)
        step, lanes_last = (portable(self.graph.graph), 0) if stepwise else step_code(self.graph.graph, lanes)
        return ChunkProgram(
            step=step,
            prepare=portable(prepared.graph),
            states=len(states),
            given=len(given),
            same=len(seeds),
            layouts=tuple(map(Layout.of, (*states, *given, *self.graph.constants))),
            length=length,
            stepwise=stepwise,
            threads=torch.get_num_threads(),
            lanes_last=lanes_last,
        )

    def _demand_equal(self, found: Stepped, expected: Stepped, beside: Callable[[], Stepped]) -> None:
        tolerance = TOLERANCE[self._step.captured.start.dtype]
        apart = self._differences(found, expected)
        farther = int((apart > tolerance).sum())
        if not farther:
            return
        grown = self._differences(beside(), expected)
        if farther > min(GROWN * int((grown > tolerance).sum()), FEW * len(apart)) or apart.max() > GROWN * grown.max():
            most = float(apart.max())
            raise MiscompiledError(f"machine code differs from the traced step by {most:.1g} of the largest number")

    def _differences(self, found: Stepped, expected: Stepped) -> Tensor:
        lanes, floor = expected[0].alive.squeeze(-1), TOLERANCE[self._step.captured.start.dtype]
        parts = ((found[0], expected[0], 0), (found[1], expected[1], 1))
        by_part = [
            differences(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), lanes, lane_dim, floor)
            for ours, theirs, lane_dim in parts
        ]
        return torch.maximum(*by_part)


def _beside(state: LaneState) -> LaneState:
    """One rounding away."""
    return replace(state, arena=state.arena * (1 + torch.finfo(state.arena.dtype).eps))


def _seen(columns: list[Tensor]) -> Seen:
    loss, ran, moved, *sizes = columns
    return Seen(loss, ran, moved, sizes)
