"""A step as a CUDA graph: the device runs its operations one after another without being told each.

An operation on some thousand lanes is over before the next one has been launched, and a step has hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sweepvi.private import foreach_copy_

Tensors: TypeAlias = Sequence[Tensor]
StepOn: TypeAlias = Callable[[Tensors, Tensors, Tensors], tuple[list[Tensor], list[Tensor]]]
"""A step: of the state, what is handed in, and constants; the state after it, and what is seen of it."""

WARM_UP = 3
"""Steps before the recording, in which libraries take the memory that they keep."""


def recordable(state: Tensors, row: Tensors, constants: Tensors) -> bool:
    """Whether all that a step reads is on a CUDA device: a number of the host's would be read once and for all."""
    return all(tensor.is_cuda for tensor in (*state, *row, *constants))


class Recording:
    """The very operations of a step, so that its results have the same bits.

    Raises ``RuntimeError`` if one of them cannot be recorded.

    Args:
        step: without side effects.
        state: tensors of the shapes that it takes.
        row: what is handed into one step.
        constants: of the step.

    """

    def __init__(self, step: StepOn, state: Tensors, row: Tensors, constants: Tensors) -> None:
        self._state, self._row, self._constants = ([each.clone() for each in part] for part in (state, row, constants))
        # What is recorded runs on a stream of its own, and so does what prepares it.
        beside = torch.cuda.Stream(self._state[0].device)
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                step(self._state, self._row, self._constants)
        torch.cuda.current_stream().wait_stream(beside)
        self._recorded = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._recorded):
            after, seen = step(self._state, self._row, self._constants)
            # Results may be views of the state, which is overwritten.
            mine = {tensor.untyped_storage().data_ptr() for tensor in self._state}
            after, seen = (
                [each.clone() if each.untyped_storage().data_ptr() in mine else each for each in part]
                for part in (after, seen)
            )
            foreach_copy_(self._state, after)
        self._seen = seen

    def __call__(self, state: Tensors, rows: Tensors, constants: Tensors) -> tuple[list[Tensor], list[Tensor]]:
        """Take steps.

        Args:
            state: before them.
            rows: what is handed into each of them, stacked: shape [T, …].
            constants: of these steps.

        Returns:
            The state after them; what was seen of each, stacked.

        """
        with torch.no_grad():
            foreach_copy_([*self._state, *self._constants], [*state, *constants])
            steps = len(rows[0])
            columns = [each.new_empty(steps, *each.shape) for each in self._seen]
            handed_in, seen = (list(zip(*(each.unbind(0) for each in part), strict=True)) for part in (rows, columns))
            for row, places in zip(handed_in, seen, strict=True):
                foreach_copy_(self._row, list(row))
                self._recorded.replay()
                foreach_copy_(list(places), self._seen)
            return [each.clone() for each in self._state], columns
