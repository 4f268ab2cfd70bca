"""Mean and variance of lanes' parameters over the second half of their steps, for comparing restarts.

Of lanes that are watched, over their steps at the last step size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sweepvi.engine.lanes.cohort import Cohort

EVERY = 64
"""Steps between parameters that are looked at."""


class Iterates:
    """Running moments (Welford 1962) of the parameters at the ends of chunks, in the second half of each lane's steps.

    Args:
        lanes: how many there are.
        size: parameters of each.

    """

    def __init__(self, lanes: int, size: int) -> None:
        self._count = torch.zeros(lanes, 1, dtype=torch.float64, device="cpu")
        self._mean = torch.zeros(lanes, size, dtype=torch.float64, device="cpu")
        self._squares = torch.zeros(lanes, size, dtype=torch.float64, device="cpu")

    def add(self, cohort: Cohort) -> None:
        """Look at lanes that are past half of their steps, or watched, where they stood since the last time."""
        last, moved = cohort.numbers.last.cpu() * (cohort.every == 0), cohort.record.chunks[-1].moved
        for stop, steps in zip(cohort.stops, moved.split([stop.steps for stop in cohort.stops]), strict=True):
            self._look(stop.arena.detach().cpu().double(), (2 * stop.done.cpu() > last) & steps.any(0)[:, None])

    def _look(self, values: Tensor, looks: Tensor) -> None:
        count = self._count + looks
        difference = torch.where(looks, values - self._mean, 0.0)
        self._mean += difference / count.clamp(min=1.0)
        self._squares += difference * torch.where(looks, values - self._mean, 0.0)
        self._count = count

    def forget(self, lane: int) -> None:
        """Begin anew for a lane."""
        for tensor in (self._count, self._mean, self._squares):
            tensor[lane] = 0.0

    def of_lanes(self, lanes: Sequence[int], count: int) -> Iterates:
        """Moments of these lanes as the first of ``count``."""
        found = Iterates(count, self._mean.shape[-1])
        for mine, other in ((found._count, self._count), (found._mean, self._mean), (found._squares, self._squares)):
            mine[: len(lanes)] = other[list(lanes)]
        return found

    def of(self, lane: int) -> tuple[Tensor, Tensor, int]:
        """Mean and variance, shape [D], and of how many."""
        count = int(self._count[lane])
        return self._mean[lane].clone(), self._squares[lane] / max(count - 1, 1), count

    def tensors_of(self, lane: int) -> dict[str, Tensor]:
        """All of a lane, by name."""
        rows = {"count": self._count, "mean": self._mean, "squares": self._squares}
        return {f"iterates/{name}": rows[name][lane : lane + 1].clone() for name in rows}

    def load(self, lane: int, tensors: dict[str, Tensor]) -> None:
        """Put a lane into the state of :meth:`tensors_of`."""
        for name, mine in (("count", self._count), ("mean", self._mean), ("squares", self._squares)):
            mine[lane] = tensors[f"iterates/{name}"][0]
