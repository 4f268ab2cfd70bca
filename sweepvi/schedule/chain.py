"""Schedules made of schedules."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeAlias

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.schedule.schedule import Schedule, State, Time

Parts: TypeAlias = Annotated[tuple[Schedule, ...], Key("the schedules, a list of nodes", component="scheduler")]


@dataclass(frozen=True)
class Chain(Schedule):
    """A schedule made of others.

    A part counts what the chain counts: under ``interval=epoch``, a part's steps are the chain's epochs. A chain that
    counts steps may have parts that count epochs of them. The state of part k has the names of the part, after ``k.``.
    """

    parts: Parts

    def conflicts(self) -> dict[str, str]:
        """Something is chained, and epochs are counted once."""
        problems = super().conflicts()
        if not self.parts:
            problems["parts"] = "must be a list of at least one schedule"
        if self.interval == "epoch" and any(_counts_epochs(part) for part in self.parts):
            problems["parts"] = "must all have interval=step here: under interval=epoch, their steps are epochs already"
        return problems

    def init(self) -> dict[str, Tensor]:
        """The states of all parts."""
        return _joined({place: part.init() for place, part in enumerate(self.parts)})

    def part_factor(self, place: int, time: Time, state: State) -> Any:
        """The factor of a part at its own ``time``."""
        return self.parts[place].factor(time, _own(place, state))

    def part_observed(self, place: int, state: State, step: Time, loss: Tensor) -> dict[str, Tensor]:
        """A part's state, under the chain's names, after an update; ``step`` counts from where the part begins."""
        return _joined({place: self._observers[place].observe(_own(place, state), step, loss)})

    @functools.cached_property
    def _observers(self) -> tuple[Schedule, ...]:
        """The parts as they are when shown every step: an update is a step, whatever the chain counts."""
        if self.interval == "step":
            return self.parts
        return tuple(replace(part, interval="epoch", steps_per_epoch=self.steps_per_epoch) for part in self.parts)


def _counts_epochs(schedule: Schedule) -> bool:
    parts = schedule.parts if isinstance(schedule, Chain) else ()
    return schedule.interval == "epoch" or any(_counts_epochs(part) for part in parts)


def _own(place: int, state: State) -> dict[str, Tensor]:
    prefix = f"{place}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _joined(states: Mapping[int, State]) -> dict[str, Tensor]:
    return {f"{place}.{name}": value for place, state in states.items() for name, value in state.items()}
