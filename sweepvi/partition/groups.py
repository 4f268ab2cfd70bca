"""Groups of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from sweepvi.keys import Key
from sweepvi.partition.group import Group
from sweepvi.partition.partition import Partition, Place


@dataclass(frozen=True)
class Groups(Partition):
    """Groups of your own, in order: each parameter belongs to the first that matches it."""

    groups: Annotated[Mapping[str, Group], Key("label → matcher (glob, regex or kind) and what differs, in order")]

    def conflicts(self) -> dict[str, str]:
        """There is a group, and labels are words."""
        bad = [label for label in self.groups if not re.fullmatch(r"[A-Za-z_][\w-]*", label)]
        if not self.groups or bad:
            return {"groups": "must have at least one group; a label is letters, digits, - and _, a letter first"}
        return {}

    def places(self) -> dict[str, Place]:
        """The groups; only a last one for the rest may be empty."""
        last = list(self.groups)[-1]
        return {
            label: Place(group, f"groups.{label}", required=group.kind != "rest" or label != last)
            for label, group in self.groups.items()
        }
