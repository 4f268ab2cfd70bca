"""The whole job from nothing: a new process, empty caches, many trials with scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from .worker import Worker, WorkerError


@dataclass(frozen=True)
class Job:
    """What is to be done: ``trials`` fits of ``steps`` steps, each scored on ``draws`` draws."""

    trials: int = 256
    steps: int = 2000
    draws: int = 1000


MEASURED = 2
"""Trials of Pyro's; the rest are taken to last as long as the second."""


@dataclass
class Jobs:
    """What a contender took for the whole job.

    Attributes:
        wall: seconds, a round each; Pyro's are extrapolated.
        finished: how many trials have not diverged.
        best: the highest ELBO.
        note: why there is nothing, if so.

    """

    wall: list[float] = field(default_factory=list)
    finished: int = 0
    best: float | None = None
    note: str = ""


def cold(case: str, dtype: str, contenders: Sequence[str], job: Job, rounds: int) -> dict[str, Jobs]:
    """The whole job by contender, in turn."""
    found = {name: Jobs() for name in contenders}
    for turn in range(rounds):
        for name in contenders[:: 1 if turn % 2 == 0 else -1]:
            jobs = found[name]
            try:
                if not jobs.note:
                    _add(jobs, name, case, dtype, job)
            except WorkerError as error:
                found[name] = Jobs(note=str(error))
    return found


def _add(jobs: Jobs, name: str, case: str, dtype: str, job: Job) -> None:
    number = MEASURED if name == "pyro" else job.trials
    request = {"name": case, "dtype": dtype, "number": number, "length": job.steps, "draws": job.draws, "tier": name}
    start = time.perf_counter()
    with Worker(name, dtype, cold=True) as worker:
        reply = worker.ask("trials", **request)
        seconds = time.perf_counter() - start
    if name == "pyro":
        seconds += (job.trials - MEASURED) * reply["each"][-1]
    jobs.wall.append(seconds)
    jobs.finished, jobs.best = reply.get("finished", 0), reply.get("best")
