"""Contenders timed side by side: what counts is the ratio between blocks run in turn in one process."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

WARM_UP = 5
"""Steps before the clock starts: the first ones create parameters, optimizers and caches."""


@dataclass(frozen=True)
class Block:
    """Consecutive steps of a fresh fit."""

    seconds: float
    """Per step, warm-up left out."""
    path: Tensor
    """What the steps computed, for comparison: losses of a fit, final parameters of an optimizer."""


Contender: TypeAlias = Callable[[int], Block]
"""Sets up, warms up, and takes that many timed steps."""


@dataclass(frozen=True)
class Case:
    """Contenders that do the same work; the first is the peer that the others are compared with."""

    name: str
    contenders: dict[str, Contender]
    longer: int = 1
    """Factor on the steps of a block, where a step is so short that the default would measure interruptions."""


def in_turn(case: Case, steps: int, rounds: int) -> dict[str, list[Block]]:
    """Blocks of each contender; the order turns round every time, so that drift favours none."""
    blocks: dict[str, list[Block]] = {name: [] for name in case.contenders}
    names = list(blocks)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            # Garbage of the one before is not this one's cost.
            gc.collect()
            blocks[name].append(case.contenders[name](case.longer * steps))
    return blocks


def rows(case: Case, blocks: dict[str, list[Block]]) -> Iterator[tuple[str, ...]]:
    """The case's lines of the table."""
    peer = next(iter(blocks.values()))
    for name, own in blocks.items():
        milliseconds = [1e3 * block.seconds for block in own]
        ratios = [other.seconds / block.seconds for block, other in zip(own, peer, strict=True)]
        apart = max(difference(block.path, other.path) for block, other in zip(own, peer, strict=True))
        yield (
            case.name if own is peer else "",
            name,
            f"{min(milliseconds):.3f}",
            f"{statistics.median(milliseconds):.3f}",
            "1" if own is peer else f"{statistics.median(ratios):.2f}",
            "" if own is peer else f"{min(ratios):.2f}-{max(ratios):.2f}",
            "" if own is peer else f"{apart:.0e}",
        )


def difference(left: Tensor, right: Tensor) -> float:
    """Largest difference of two paths, relative to the largest entry."""
    return float((left - right).abs().max() / right.abs().max())


HEADER = ("case", "contender", "min ms", "median ms", "speed-up", "range", "apart")


def show(lines: list[tuple[str, ...]]) -> None:
    """Print the table with its columns aligned: words to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    for line in lines:
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
