"""What decides when a fit is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from sweepvi.keys import Keyed

if TYPE_CHECKING:
    from sweepvi.stopping.watch import Watch


class Stop(Keyed, ABC):
    """A rule by which fits end, at ``engine.steps`` at the latest."""

    @abstractmethod
    def watch(self, size: int) -> Watch | None:
        """What watches one fit of ``size`` parameters, from its start; None if nothing needs to."""
