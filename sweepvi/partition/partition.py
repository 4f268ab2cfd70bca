"""What a partition is: parameters → groups, each parameter in exactly one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from sweepvi.errors import ConfigError, Problem, listed, raise_if
from sweepvi.keys import Keyed
from sweepvi.partition.group import Group, Kind


@dataclass(frozen=True)
class Place:
    """A group's place in a partition."""

    group: Group
    key: str
    """Where the group is in the partition's configuration; empty if it is not."""
    required: bool
    """Whether it is an error if no parameter is in it."""


@dataclass(frozen=True)
class Partition(Keyed, ABC):
    """Puts every parameter into exactly one group: the first that matches."""

    @abstractmethod
    def places(self) -> dict[str, Place]:
        """Label → group, in the order in which they are asked."""

    def assign(self, kinds: Mapping[str, Kind]) -> dict[str, str]:
        """Parameter name → label of its group.

        Args:
            kinds: parameter name → what it is for.

        Raises:
            ConfigError: with every name that no group takes.

        """
        places = self.places()
        labels = {
            name: next((label for label, place in places.items() if place.group.matches(name, kind)), None)
            for name, kind in kinds.items()
        }
        unmatched = [f"{name} ({kinds[name]})" for name, label in labels.items() if label is None]
        if unmatched:
            matchers = listed(f"{label} ({place.group.matcher()})" for label, place in places.items())
            message = f"no group takes {listed(unmatched)}; the groups are {matchers}; add one with kind: rest"
            raise ConfigError([Problem("partition", message)])
        return {name: label for name, label in labels.items() if label is not None}

    def demand_filled(self, labels: Mapping[str, str], kinds: Mapping[str, Kind]) -> None:
        """Raise ``ConfigError`` if a group that must not be empty is, given what :meth:`assign` has returned."""
        known = listed(f"{name} ({kind})" for name, kind in kinds.items())
        raise_if(
            [
                Problem(
                    f"partition.{place.key}" if place.key else "partition",
                    f"{place.group.matcher()} takes no parameter that is left to it; the parameters are {known}",
                )
                for label, place in self.places().items()
                if place.required and label not in labels.values()
            ]
        )
