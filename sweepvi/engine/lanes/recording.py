"""A step as a CUDA graph: the device runs its operations one after another without being told each.

An operation on some thousand lanes is over before the next one has been launched, and a step has hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.private import foreach_copy_

WARM_UP = 3
"""Steps before the recording, in which libraries take the memory that they keep."""


def recordable(graph: StepGraph, state: Sequence[Tensor], row: Sequence[Tensor]) -> bool:
    """Whether all that a step reads is on a CUDA device: a number of the host's would be read once and for all."""
    return all(tensor.is_cuda for tensor in (*state, *row, *graph.constants))


class Recording:
    """The very operations of a traced step, so that its results have the same bits.

    Raises ``RuntimeError`` if one of them cannot be recorded.

    Args:
        graph: the step.
        state: tensors of the shapes that it takes.
        row: what is handed into one step.

    """

    def __init__(self, graph: StepGraph, state: Sequence[Tensor], row: Sequence[Tensor]) -> None:
        self._step = graph
        self._state, self._row = [each.clone() for each in state], [each.clone() for each in row]
        self._held, self._constants = graph.constants, [each.clone() for each in graph.constants]
        # What is recorded runs on a stream of its own, and so does what prepares it.
        beside = torch.cuda.Stream(self._state[0].device)
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                graph.on(self._state, self._row, self._constants)
        torch.cuda.current_stream().wait_stream(beside)
        self._recorded = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._recorded):
            after, seen = graph.on(self._state, self._row, self._constants)
            # Results may be views of the state, which is overwritten.
            mine = {tensor.untyped_storage().data_ptr() for tensor in self._state}
            after, seen = (
                [each.clone() if each.untyped_storage().data_ptr() in mine else each for each in part]
                for part in (after, seen)
            )
            foreach_copy_(self._state, after)
        self._seen = seen

    def __call__(self, state: Sequence[Tensor], rows: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Take steps.

        Args:
            state: before them.
            rows: what is handed into each of them, stacked: shape [T, …].

        Returns:
            The state after them; what was seen of each, stacked.

        """
        with torch.no_grad():
            if self._held is not self._step.constants:
                self._held = self._step.constants
                foreach_copy_(self._constants, self._held)
            foreach_copy_(self._state, list(state))
            steps = len(rows[0])
            columns = [each.new_empty(steps, *each.shape) for each in self._seen]
            handed_in, seen = (list(zip(*(each.unbind(0) for each in part), strict=True)) for part in (rows, columns))
            for row, places in zip(handed_in, seen, strict=True):
                foreach_copy_(self._row, list(row))
                self._recorded.replay()
                foreach_copy_(list(places), self._seen)
            return [each.clone() for each in self._state], columns
