"""One group."""

from __future__ import annotations

from dataclasses import dataclass

from sweepvi.partition.group import Group
from sweepvi.partition.partition import Partition, Place


@dataclass(frozen=True)
class Single(Partition):
    """All parameters in one group, with the optimizer and schedule as configured."""

    def places(self) -> dict[str, Place]:
        """One group, ``all``."""
        return {"all": Place(Group(kind="rest"), "", required=False)}
