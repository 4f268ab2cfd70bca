"""Who is judged when: the order in which a study without concurrency would have judged its trials.

Trials run beside each other, and reach their rungs in any order. A pruner compares a trial with those before it; so
that what it says does not depend on how many workers there are or how fast they are, a trial is judged at a rung when
every trial of a lower number has been, or is over. Until then it goes on: if it is pruned, some of its steps were in
vain, and what is known of it is what was known at the rung.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Arrival:
    """A trial at a rung."""

    number: int
    rung: int
    step: int
    value: float
    seconds: float = 0.0
    """That steps took until then."""


class Rungs:
    """Trials that wait to be judged.

    Args:
        count: rungs of a trial.

    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._arrived: dict[tuple[int, int], Arrival] = {}
        self._next = [0] * count
        """The trial to be judged next at each rung."""
        self._left: dict[int, int] = {}
        """Trials that are over → the first rung at which they are not judged."""
        self._passed: dict[int, int] = {}
        """Trial → rungs at which it has been judged."""

    def arrive(self, arrival: Arrival) -> None:
        """A trial has reached a rung; a second time is not counted."""
        if arrival.rung >= self._passed.get(arrival.number, 0):
            self._arrived.setdefault((arrival.number, arrival.rung), arrival)

    def passed(self, number: int, rung: int, pruned: bool) -> None:
        """A trial has been judged."""
        self._arrived.pop((number, rung), None)
        self._passed[number] = rung + 1
        self._next[rung] = max(self._next[rung], number + 1)
        if pruned:
            self.leave(number, rung + 1)

    def leave(self, number: int, rung: int | None = None) -> None:
        """A trial is over: it comes to no rung from ``rung`` on; None is all at which it has not arrived yet."""
        if rung is None:
            arrived = [at for (other, at) in self._arrived if other == number]
            rung = max([self._passed.get(number, 0), *(at + 1 for at in arrived)])
        self._left[number] = min(rung, self._left.get(number, rung))

    def judged(self, number: int) -> bool:
        """Whether a trial that is over has been judged at every rung at which it arrived."""
        return self._passed.get(number, 0) >= self._left.get(number, self.count)

    def due(self) -> Iterator[Arrival]:
        """Trials that can be judged now; each must have :meth:`passed` before the next is asked for."""
        found = True
        while found:
            found = False
            for rung in range(self.count):
                while self._is_open(rung) and self._left.get(self._next[rung], self.count) <= rung:
                    self._next[rung] += 1
                    found = True
                arrival = self._arrived.get((self._next[rung], rung))
                if arrival is not None and self._is_open(rung):
                    yield arrival
                    found = True

    def _is_open(self, rung: int) -> bool:
        """Whether the next trial at a rung is done with the rung before."""
        return rung == 0 or self._next[rung] < self._next[rung - 1]
