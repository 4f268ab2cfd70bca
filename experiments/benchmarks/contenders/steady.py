"""Time of a step once all is set up: blocks of steps of fits that go on, one contender after the other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .problems import problem
from .worker import Worker, WorkerError


@dataclass
class Blocks:
    """What a contender took.

    Attributes:
        wall: seconds per lane-step, a block each.
        cpu: the same, in seconds of the processor.
        loss: at the end, the mean over lanes.
        note: why there is nothing, if so.

    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    loss: float = math.nan
    note: str = ""


AVERAGED = 31
"""Losses after those of :func:`agreement`, of a step or a chunk each."""


@dataclass(frozen=True)
class Plan:
    """How to measure: ``rounds`` blocks of each contender, of about so many ``seconds``, on a ``device``."""

    contenders: Sequence[str]
    seconds: float = 0.4
    rounds: int = 5
    device: str = "cpu"


class Runner:
    """A contender with its fits."""

    def __init__(self, name: str, worker: Worker) -> None:
        self.name, self.blocks = name, Blocks()
        self._worker, self._steps = worker, 1

    def attempt(self, action: Callable[[], None]) -> None:
        """Do it unless something went wrong before; keep what goes wrong."""
        if self.blocks.note:
            return
        try:
            action()
        except WorkerError as error:
            self.blocks = Blocks(note=str(error))

    def start(self, case: str, dtype: str, lanes: int, device: str) -> None:
        """Set up; Pyro has one lane only."""
        arrays = problem(case).arrays if self.name == "numpyro" else None
        request = {"name": case, "dtype": dtype, "lanes": lanes, "device": device, "tier": self.name}
        self._worker.ask("start", **request, **({"arrays": arrays} if arrays else {}))

    def calibrate(self, seconds: float) -> None:
        """Find how many steps take so many seconds."""
        reply = self._worker.ask("advance", steps=1)
        while reply["seconds"] < seconds / 4:
            reply = self._worker.ask("advance", steps=4 * reply["steps"])
        self._steps = max(1, round(reply["steps"] * seconds / reply["seconds"]))

    def measure(self, steps: int | None = None) -> None:
        """Add a block."""
        reply = self._worker.ask("advance", steps=steps or self._steps)
        lane_steps = reply["steps"] * reply["lanes"]
        self.blocks.wall.append(reply["seconds"] / lane_steps)
        self.blocks.cpu.append(reply["cpu"] / lane_steps)
        self.blocks.loss = reply["loss"]

    def average(self, times: int) -> None:
        """Go on, and take the mean of losses: one minibatch's is noise."""
        losses = [self._worker.ask("advance", steps=1)["loss"] for _ in range(times)]
        self.blocks.loss = statistics.fmean([self.blocks.loss, *losses])


def steady(case: str, dtype: str, lanes: Sequence[int], plan: Plan) -> Iterator[tuple[int, dict[str, Blocks]]]:
    """The blocks of all contenders, by name, for each number of lanes."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, dtype)) for name in plan.contenders}
        for number in lanes:
            runners = _started(workers, case, dtype, number, plan)
            for runner in runners:
                runner.attempt(lambda runner=runner: runner.calibrate(plan.seconds))
            for turn in range(plan.rounds):
                # The order turns round every time, so that drift favours none.
                for runner in runners[:: 1 if turn % 2 == 0 else -1]:
                    runner.attempt(runner.measure)
            yield number, {runner.name: runner.blocks for runner in runners}


def agreement(case: str, dtype: str, lanes: int, steps: int, plan: Plan) -> dict[str, Blocks]:
    """One block of as many steps of every contender: do they fit the same?"""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, dtype)) for name in plan.contenders}
        runners = _started(workers, case, dtype, lanes, plan)
        for runner in runners:
            runner.attempt(lambda runner=runner: runner.measure(steps))
            runner.attempt(lambda runner=runner: runner.average(AVERAGED))
        return {runner.name: runner.blocks for runner in runners}


def _started(workers: Mapping[str, Worker], case: str, dtype: str, lanes: int, plan: Plan) -> list[Runner]:
    runners = [Runner(name, worker) for name, worker in workers.items()]
    for runner in runners:
        runner.attempt(lambda runner=runner: runner.start(case, dtype, lanes, plan.device))
    return runners
