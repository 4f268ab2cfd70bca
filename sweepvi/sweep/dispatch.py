"""Which worker runs which fits: lanes are kept full, and every program that has something to do is open somewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sweepvi.sweep.jobs import Job
from sweepvi.sweep.protocol import Answer, Turn

WAVES, FEW = 4, 32
"""Where trials are pruned, a program has lanes for one in so many of its fits at most, so that lanes which become free
are taken again; but not fewer lanes than these, which cost hardly more than one."""

PARTS = 4
"""Into so many parts are fits divided that have gone down together, until the one at fault is alone."""


@dataclass
class Seat:
    """What a worker has."""

    jobs: dict[int, Job] = field(default_factory=dict)
    """Those it was given and has not ended."""
    free: dict[str, int] = field(default_factory=dict)
    """Room in each of its open programs, less what it was given since."""
    drop: list[int] = field(default_factory=list)
    """What it is to be told to let go of."""
    quarantined: bool = False
    """Whether it runs suspects, and gets nothing else until they are done."""
    draining: bool = False
    """Whether it gets nothing more, because it is to be replaced."""
    asked: bool = False
    """Whether it waits for an answer."""


class Dispatch:
    """Fits that wait, and who gets them.

    Args:
        lanes: most fits that a worker runs at once.
        pruned: whether fits may end early.

    """

    def __init__(self, lanes: int, pruned: bool = False) -> None:
        self.lanes, self._pruned = lanes, pruned
        self.seats: dict[int, Seat] = {}
        """By slot."""
        self._queues: dict[str, deque[Job]] = {}
        self._suspects: deque[list[Job]] = deque()

    @property
    def waiting(self) -> int:
        """Fits that no worker has."""
        return sum(map(len, self._queues.values())) + sum(map(len, self._suspects))

    @property
    def running(self) -> int:
        """Fits that a worker has."""
        return sum(len(seat.jobs) for seat in self.seats.values())

    def jobs(self) -> Iterable[Job]:
        """All of them."""
        for seat in self.seats.values():
            yield from seat.jobs.values()
        for queue in (*self._queues.values(), *self._suspects):
            yield from queue

    def add(self, job: Job) -> None:
        """A new fit."""
        self._queues.setdefault(job.order.program, deque()).append(job)

    def heard(self, slot: int, turn: Turn) -> None:
        """A worker has spoken."""
        seat = self.seats[slot]
        seat.asked, seat.free = True, dict(turn.free)

    def ended(self, slot: int, key: int) -> Job | None:
        """A worker's fit is over; None if it was not wanted any more."""
        return self.seats[slot].jobs.pop(key, None)

    def forget(self, wanted: Iterable[Job]) -> None:
        """Let go of fits, wherever they are."""
        keys = {job.key for job in wanted}
        for seat in self.seats.values():
            for key in keys & seat.jobs.keys():
                program = seat.jobs.pop(key).order.program
                seat.drop.append(key)
                # Its lane is free as soon as the worker hears of it.
                if program in seat.free:
                    seat.free[program] += 1
        for program, queue in self._queues.items():
            self._queues[program] = deque(job for job in queue if job.key not in keys)
        self._suspects = deque(
            kept for batch in self._suspects if (kept := [job for job in batch if job.key not in keys])
        )

    def gone(self, slot: int, keys: Iterable[int] | None = None) -> list[Job]:
        """Fits that have gone down with their worker, or their program; to be tried again in smaller parts.

        Returns the one that was alone among suspects, or nothing: that one is at fault.
        """
        seat = self.seats[slot]
        lost = [seat.jobs.pop(key) for key in (list(seat.jobs) if keys is None else list(keys)) if key in seat.jobs]
        for job in lost:
            job.sent = None
        if len(lost) == 1 and seat.quarantined:
            return lost
        size = -(-len(lost) // PARTS)
        self._suspects.extend(lost[start : start + size] for start in range(0, len(lost), max(1, size)))
        return []

    def returned(self, slot: int) -> None:
        """A worker's fits wait again, under no suspicion."""
        for job in self.seats[slot].jobs.values():
            job.sent = None
            self._queues.setdefault(job.order.program, deque()).appendleft(job)
        self.seats[slot].jobs.clear()

    def answer(self, slot: int, last: bool) -> Answer | None:
        """What a worker that has spoken is to do next; None if there is nothing for it now."""
        seat = self.seats[slot]
        seat.quarantined = seat.quarantined and bool(seat.jobs)
        jobs, sizes = self._chosen(slot, seat)
        drop, seat.drop = seat.drop, []
        if not jobs and not seat.jobs and not drop:
            return None
        for job in jobs:
            seat.jobs[job.key] = job
        seat.asked = False
        totals = {program: self._steps(program, jobs) for program in sizes}
        quiet = last and not self.waiting
        return Answer([job.order for job in jobs], drop, sizes, totals, last=quiet)

    def _chosen(self, slot: int, seat: Seat) -> tuple[list[Job], dict[str, int]]:
        if seat.draining or seat.quarantined:
            return [], {}
        if self._suspects:
            if seat.jobs:
                # It takes no more, so that it can take suspects.
                return [], {}
            seat.quarantined = True
            batch = self._suspects.popleft()
            sizes = {job.order.program: len(batch) for job in batch}
            return batch, sizes
        jobs: list[Job] = []
        for program, room in seat.free.items():
            jobs += self._take(program, room)
        sizes = {}
        while (program := self._to_open(slot, seat, len(seat.jobs) + len(jobs))) is not None:
            sizes[program] = self._share(program)
            # One opens it; the others follow when it is known how many there is room for.
            jobs += self._take(program, 1)
            seat.free[program] = 0
        return jobs, sizes

    def _take(self, program: str, count: int) -> list[Job]:
        queue = self._queues.get(program, deque())
        return [queue.popleft() for _ in range(min(count, len(queue)))]

    def _to_open(self, slot: int, seat: Seat, load: int) -> str | None:
        """A program that this worker is to open: one that is open nowhere; or, if it has nothing to do, any."""
        wanting = [program for program, queue in self._queues.items() if queue and program not in seat.free]
        others = [other for number, other in self.seats.items() if number != slot]
        # Those that have nothing to do, or have only just been started, take one each.
        idle = sum(not other.jobs and not other.quarantined for other in others) if load else 0
        unopened = [program for program in wanting if all(program not in other.free for other in others)]
        if len(unopened) > idle:
            return unopened[0]
        if load:
            return None
        rich = [program for program in wanting if len(self._queues[program]) > 1 or not others]
        return max(rich, key=lambda program: len(self._queues[program]), default=None)

    def _share(self, program: str) -> int:
        """How many lanes a worker is to have for a program: its part of those that wait for it."""
        everyone = list(self.jobs())
        count = sum(job.order.program == program for job in everyone)
        workers = max(1, round(len(self.seats) * count / len(everyone)))
        own = -(-count // workers)
        if self._pruned and own > FEW:
            # Programs are made for powers of two.
            own = max(FEW, 1 << (own // WAVES).bit_length() - 1)
        return min(self.lanes, own)

    def _steps(self, program: str, jobs: Iterable[Job]) -> int:
        """Steps of all fits that are known of a program."""
        own = [job for job in (*jobs, *self._queues.get(program, ())) if job.order.program == program]
        return sum(int(job.order.config["engine"]["steps"]) for job in own)
