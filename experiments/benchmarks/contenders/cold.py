"""The whole job from nothing: a new process, empty caches, many trials with scores."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from .worker import Worker, WorkerError


@dataclass(frozen=True)
class Job:
    """What is to be done: ``trials`` fits of ``steps`` steps, each scored on ``draws`` draws."""

    trials: int = 256
    steps: int = 2000
    draws: int = 1000
    measured_steps: int = 300
    """Of Pyro's, from which the rest is extrapolated."""


@dataclass
class Cold:
    """Seconds of the whole job, a round each."""

    problem: str
    dtype: str
    compile: str
    sweepvi: list[float] = field(default_factory=list)
    pyro: list[float] = field(default_factory=list)
    finished: int = 0
    best: float = math.nan
    note: str = ""


def measure(problem: str, dtype: str, compile: str, job: Job, rounds: int) -> Cold:
    """sweepvi's job and a piece of Pyro's, in turn."""
    result = Cold(problem, dtype, compile)
    try:
        for _ in range(rounds):
            seconds, reply = _sweepvi(problem, dtype, compile, job)
            result.sweepvi.append(seconds)
            result.finished, result.best = reply["finished"], reply["best"]
            result.pyro.append(_pyro(problem, dtype, job))
    except WorkerError as error:
        result.note = str(error)
    return result


def _sweepvi(problem: str, dtype: str, compile: str, job: Job) -> tuple[float, dict[str, Any]]:
    request = {"number": job.trials, "length": job.steps, "draws": job.draws, "compile": compile}
    start = time.perf_counter()
    with Worker("sweepvi", dtype, cold=True) as worker:
        reply = worker.ask("trials", name=problem, dtype=dtype, **request)
        return time.perf_counter() - start, reply


def _pyro(problem: str, dtype: str, job: Job) -> float:
    start = time.perf_counter()
    with Worker("pyro", dtype, cold=True) as worker:
        worker.ask("ready")
        imported = time.perf_counter() - start
        # The first trial warms up what is kept between trials.
        worker.ask("trial", name=problem, dtype=dtype, length=5, draws=1)
        parts = worker.ask("trial", name=problem, dtype=dtype, length=job.measured_steps, draws=job.draws)
    return imported + job.trials * (parts["setup"] + job.steps * parts["step"] + parts["score"])
