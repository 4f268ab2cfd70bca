"""Fits in progress: what the loop drives, whichever engine computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.outcome import Outcome
from sweepvi.settings import Settings

SKIPS_IN_A_ROW = 100
"""Under ``on_nonfinite=skip``, this many updates left out one after another end the fit as diverged."""


class Fits(ABC):
    """One fit in progress, or several that advance together.

    Attributes:
        settings: how they are watched and saved: those of the first.
        seconds: time spent on steps so far; the loop keeps it.
        interrupt: whether the user wants to stop; the loop sets it.
        at_boundary: whether the state is that between two steps: false if an interrupt has cut an update in half.

    """

    settings: Settings
    seconds: float = 0.0
    interrupt: Interrupt = Interrupt()
    at_boundary: bool = True

    @property
    @abstractmethod
    def total(self) -> int:
        """Steps of the longest fit."""

    @property
    @abstractmethod
    def step_count(self) -> int:
        """Steps taken by the fit that has come furthest."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether a fit has steps left to take, and has not diverged."""

    @property
    @abstractmethod
    def last_loss(self) -> float:
        """A loss of the last step taken."""

    @abstractmethod
    def advance(self, until: int) -> None:
        """Take at least one step, none after step ``until``; a fit that diverges ends, with the reason kept."""

    @abstractmethod
    def demand_finite_parameters(self) -> None:
        """End those fits whose last update has left a parameter that is not finite."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """All that a continuation needs."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same recipes; ``CheckpointError`` if it does not fit."""

    @abstractmethod
    def outcomes(self, interrupt: Interrupt, progress: Callable[[int, int], None]) -> list[Outcome]:
        """What each fit has computed, in the order of the recipes; those with steps left are interrupted.

        Those that are finished are scored on fresh draws; they are interrupted if the user is faster.

        Args:
            interrupt: whether the user wants to stop.
            progress: called with how many draws are evaluated, and of how many.

        """
