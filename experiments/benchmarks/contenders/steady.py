"""Time of a step in the steady state: the difference between a long and a short call, so that set-up cancels."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from .worker import Worker, WorkerError

CONTENDERS = ("pyro", "numpyro", "traced", "compiled")
"""Peers first; the last two are sweepvi's tiers."""
MODULES = {"pyro": "pyro", "numpyro": "numpyro", "traced": "sweepvi", "compiled": "sweepvi"}
MOST_STEPS = 1_000_000


@dataclass
class Runner:
    """A contender on a problem at a number of lanes.

    Attributes:
        few: steps of the short call.
        many: steps of the long one; 0 until calibrated.
        times: seconds per lane-step, a round each.
        note: why there are no times, or what is remarkable about them.

    """

    name: str
    lanes: int
    steps: Callable[[int], dict[str, Any]]
    few: int = 0
    many: int = 0
    times: list[float] = field(default_factory=list)
    note: str = ""
    loss: float = math.nan
    memory: int = 0

    def calibrate(self, seconds: float) -> None:
        """Find a length of the long call that takes ``seconds`` more than the short one."""
        self.few = min(64, max(8, 1024 // self.lanes))
        # The first call compiles, fills caches, and shows the memory that lanes need.
        self.memory = self.steps(self.few)["rss"]
        short = self.steps(self.few)["seconds"]
        many = 4 * self.few
        while True:
            spent = self.steps(many)["seconds"] - short
            if spent >= seconds / 2 or many >= MOST_STEPS:
                break
            many = min(MOST_STEPS, many * max(2, min(16, int(seconds / max(spent, 1e-9)))))
        self.many = self.few + max(1, min(MOST_STEPS, round((many - self.few) * seconds / max(spent, 1e-9))))

    def measure(self) -> None:
        """Add a round."""
        short = self.steps(self.few)
        long = self.steps(self.many)
        spent = long["seconds"] - short["seconds"]
        self.times.append(spent / (self.many - self.few) / self.lanes)
        self.loss = long["loss"]
        threads = (long["cpu"] - short["cpu"]) / spent
        notes = list(long.get("notes", []))
        if threads > 1.2:
            notes.append(f"{threads:.1f} CPU seconds a second: more than one thread")
        self.note = "; ".join(notes)

    @property
    def microseconds(self) -> float:
        """Median over the rounds, per lane-step; NaN if there is none."""
        return 1e6 * statistics.median(self.times) if self.times else math.nan

    def attempt(self, action: Callable[[], None]) -> None:
        """Do it unless something went wrong before; keep what goes wrong."""
        if self.failed:
            return
        try:
            action()
        except WorkerError as error:
            self.note = str(error)
            self.times.clear()
            self.many = -1

    @property
    def failed(self) -> bool:
        """Whether the contender gave an error."""
        return self.many < 0

    def record(self) -> dict[str, Any]:
        """All but the way to ask, for saving."""
        kept = ("name", "lanes", "few", "many", "times", "note", "loss", "memory")
        return {key: getattr(self, key) for key in kept}


def runner(name: str, worker: Worker, problem: str, dtype: str, lanes: int, data: str) -> Runner:
    """A contender by its name."""
    if name == "pyro":
        return Runner(name, 1, lambda number: worker.ask("steps", name=problem, dtype=dtype, number=number))
    request: dict[str, Any] = {"name": problem, "lanes": lanes}
    request |= {"data": data} if name == "numpyro" else {"dtype": dtype, "tier": name}
    return Runner(name, lanes, lambda number: worker.ask("steps", number=number, **request))


def in_turn(
    names: Sequence[str], problem: str, dtype: str, lanes: Sequence[int], data: str, seconds: float, rounds: int
) -> Iterator[dict[str, Runner]]:
    """Contenders by name, measured round by round, one after the other: a dictionary for each number of lanes."""
    with ExitStack() as stack:
        modules = dict.fromkeys(MODULES[name] for name in names)
        workers = {module: stack.enter_context(Worker(module, dtype)) for module in modules}
        for number in lanes:
            runners = {name: runner(name, workers[MODULES[name]], problem, dtype, number, data) for name in names}
            for each in runners.values():
                each.attempt(lambda each=each: each.calibrate(seconds))
            for turn in range(rounds):
                # The order turns round every time, so that drift favours none.
                for each in list(runners.values())[:: 1 if turn % 2 == 0 else -1]:
                    each.attempt(each.measure)
            yield runners


def ratios(peer: Runner, own: Runner) -> list[float]:
    """How many times as fast as the peer, round by round."""
    return [other / mine for other, mine in zip(peer.times, own.times, strict=False)]
