"""What trials that run one at a time have in common."""

from __future__ import annotations

from collections.abc import Iterable

from sweepvi.engine.trials import Task, Trials

SECONDS = 0.5
"""After which a worker is heard of again, whether or not a fit is at a stop."""


class LoneTrials(Trials):
    """See :class:`Trials`; one has a seat at a time."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._steps = 0.0

    @property
    def running(self) -> list[int]:
        """See :attr:`Trials.running`."""
        return [self._task.key] if self._task else []

    @property
    def size(self) -> int:
        """See :attr:`Trials.size`."""
        return 1

    @property
    def free(self) -> int:
        """See :attr:`Trials.free`."""
        return 0 if self._task else 1

    def drop(self, keys: Iterable[int]) -> None:
        """See :meth:`Trials.drop`."""
        if self._task and self._task.key in set(keys):
            self._task = None

    def occupancy(self) -> tuple[float, float]:
        """See :meth:`Trials.occupancy`; a lone fit is always busy."""
        found, self._steps = self._steps, 0.0
        return found, found

    def no_more(self) -> None:
        """See :meth:`Trials.no_more`."""

    def close(self) -> None:
        """See :meth:`Trials.close`."""
