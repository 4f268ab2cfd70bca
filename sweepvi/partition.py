"""Which parameters are optimized together: names → groups."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from sweepvi.keys import Keyed


@dataclass(frozen=True)
class Partition(Keyed, ABC):
    """Assigns every parameter to exactly one group."""

    @abstractmethod
    def assign(self, names: Iterable[str]) -> dict[str, str]:
        """Parameter name → label of its group, for every name given."""


@dataclass(frozen=True)
class Single(Partition):
    """All parameters in one group, with the optimizer and schedule as configured."""

    def assign(self, names: Iterable[str]) -> dict[str, str]:
        """Every name → ``"all"``."""
        return dict.fromkeys(names, "all")
