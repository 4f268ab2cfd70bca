"""Fits on one process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from sweepvi.distributed.distributed import Distributed
from sweepvi.distributed.launch import Launch
from sweepvi.distributed.ranks import Alone, Ranks
from sweepvi.errors import Problem


@dataclass(frozen=True)
class NotDistributed(Distributed):
    """One process."""

    @property
    def launch(self) -> Launch:
        """See :attr:`Distributed.launch`."""
        return Launch(0, 1, 0)

    def problems(self, device: str) -> list[Problem]:
        """Nothing."""
        del device
        return []

    def device(self, device: str) -> str:
        """The device that it is told."""
        return device

    def joined(self, device: str) -> AbstractContextManager[Ranks]:
        """At once."""
        del device
        return nullcontext(Alone())
