"""How much memory lanes need, and how many fit.

A lane takes the gradient's intermediate results at their peak, measured on two lanes; its parameters, their gradient
and the optimizer's slots, twice while a step replaces them; its noise of a chunk of steps; what is recorded of each
step; and objects of Python's. When it is over, its result takes copies of what was recorded, and more objects: all
results are there at once, when no step needs memory any more.
"""

from __future__ import annotations

import os
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sweepvi.errors import ConfigError, Problem
from sweepvi.private import DispatchMode
from sweepvi.settings import LaneSettings

if TYPE_CHECKING:
    from sweepvi.engine.lanes.captured import Captured

CHUNK = 64
"""Steps of a chunk, unless its noise would be too much."""

NOISE = 1 << 22
"""Random numbers of a chunk, of all lanes together, at most."""

IN_CACHE, FEWEST = 1_500_000, 16
"""Parameters of all lanes that a processor's cache has room for, and lanes that are worth it without."""


class Peak(DispatchMode):
    """Inside, notes the most memory that results of tensor operations take at one time, in ``bytes``."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count the storage that it has made."""
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.bytes = max(self.bytes, self._now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)


def available(device: torch.device) -> int:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


SHARE = 0.5
"""Of the free memory, what lanes may take unless the settings say how much."""


_OBJECTS, _RECORDED = 12 << 10, 18
"""Bytes a lane, and a step of it: measured on eight schools, where they are most of it."""
_RESULT, _KEPT = 32 << 10, 50
"""The same of a result, with what was recorded."""


def lane_bytes(found: Captured, slots: int, steps: int) -> int:
    """Memory that a lane takes while it runs, in bytes: the formula at the top of this file.

    Args:
        found: the program.
        slots: numbers in the optimizer's slots for each parameter.
        steps: that it takes.

    """
    size, each = len(found.start), found.start.element_size()
    # Where noise is much, it is so in few lanes, and chunks are shorter.
    numbers = min(sum(found.draws.noise.taken.values()) * CHUNK, NOISE // 16)
    return found.lane_bytes + each * (size * 2 * (2 + slots) + numbers) + _RECORDED * steps + _OBJECTS


def most_lanes(found: Captured, settings: LaneSettings) -> int:
    """How many lanes are run at once, of more that wait: as many as memory and the processor's cache have room for."""
    return min(lanes_in_memory(found, settings), lanes_in_cache(found))


def lanes_in_memory(found: Captured, settings: LaneSettings, slots: int = 4) -> int:
    """How many lanes fit into memory."""
    device = found.start.device
    limit = settings.memory * 2**30 if settings.memory is not None else SHARE * available(device)
    return int(limit // _needed(found, settings, slots))


def lanes_in_cache(found: Captured) -> int:
    """How many lanes are worth running at once.

    Beyond a processor's cache, a lane's step takes up to twice as long, and calls are few for the numbers in them.
    """
    return max(FEWEST, IN_CACHE // max(1, len(found.start))) if found.start.device.type == "cpu" else sys.maxsize


def _needed(found: Captured, settings: LaneSettings, slots: int) -> int:
    return max(lane_bytes(found, slots, settings.steps), _RESULT + _KEPT * settings.steps)


def demand_room(found: Captured, settings: LaneSettings, restarts: int) -> None:
    """Raise ``ConfigError`` if a fit's restarts do not fit into memory at once."""
    most = lanes_in_memory(found, settings)
    if restarts <= most:
        return
    need, have = _needed(found, settings, 4) / 2**30, available(found.start.device) / 2**30
    message = (
        f"{restarts} fits at once need {restarts * need:.2g} GiB, and there is room for {most} "
        f"({have:.2g} GiB of memory are free); choose fewer engine.restarts, or set engine.memory"
    )
    raise ConfigError([Problem("engine.restarts", message)])
