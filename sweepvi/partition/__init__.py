"""Which parameters are optimized together, and what is different for each group."""

from sweepvi.partition.group import Group, Kind, Overrides
from sweepvi.partition.groups import Groups
from sweepvi.partition.partition import Partition, Place
from sweepvi.partition.presets import BaselineNetworks, LocScale, NNVariational
from sweepvi.partition.single import Single

__all__ = [
    "BaselineNetworks",
    "Group",
    "Groups",
    "Kind",
    "LocScale",
    "NNVariational",
    "Overrides",
    "Partition",
    "Place",
    "Single",
]
