"""Time and memory against lanes and dimension, on a model that is next to nothing but lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .steady import MODULES, runner
from .worker import Worker


@dataclass(frozen=True)
class Point:
    """A contender at a number of latent scalars (``size``, half of its parameters) and of lanes."""

    name: str
    size: int
    lanes: int
    seconds: float
    """Of a step of all lanes, the best of the rounds."""
    memory: int
    """Largest resident memory of its process, in bytes; it ran nothing else."""


def measure(
    names: Sequence[str],
    dtype: str,
    sizes: Sequence[int],
    lanes: Sequence[int],
    data: Callable[[str], str],
    seconds: float,
    rounds: int,
) -> Iterator[Point]:
    """A process for every point, so that memory is that point's own."""
    for size in sizes:
        problem = f"normal_means:{size}"
        for number in lanes:
            for name in names:
                with Worker(MODULES[name], dtype) as worker:
                    one = runner(name, worker, problem, dtype, number, data(problem))
                    one.attempt(lambda one=one: one.calibrate(seconds))
                    for _ in range(rounds):
                        one.attempt(one.measure)
                if one.failed:
                    print(f"{name}, D = {size}, {number} lanes: {one.note}", flush=True)
                else:
                    yield Point(name, size, number, min(one.times) * number, one.memory)
