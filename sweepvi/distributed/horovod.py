"""Ranks that speak by Horovod.

Sergeev & Del Balso, "Horovod: fast and easy distributed deep learning in TensorFlow", 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from sweepvi.distributed.distributed import Parallel
from sweepvi.distributed.ranks import Ranks
from sweepvi.errors import Problem


@dataclass(frozen=True)
class Horovod(Parallel):
    """By Horovod, which must be installed: docs/distributed.md says how."""

    start: ClassVar[str] = "horovodrun -np 2 --gloo python -m sweepvi …"

    def conflicts(self) -> dict[str, str]:
        """Not every type can be sent."""
        return {"compression": "must be none or fp16: Horovod sends no bf16"} if self.compression == "bf16" else {}

    def problems(self, device: str) -> list[Problem]:
        """See :meth:`Distributed.problems`."""
        if find_spec("horovod") is None:
            message = "needs the package horovod, which docs/distributed.md says how to build; gloo needs nothing"
            return [Problem.of("distributed", "horovod", message)]
        return super().problems(device)

    def joined(self, device: str) -> AbstractContextManager[Ranks]:
        """See :meth:`Distributed.joined`."""
        del device
        return _joined()


@contextmanager
def _joined() -> Iterator[Ranks]:
    from sweepvi.distributed.horovod_ranks import HorovodRanks, demand_horovod

    horovod = demand_horovod()
    if not horovod.is_initialized():
        horovod.init()
    # It is left as it is, for the next fit; Horovod shuts itself down when the process ends.
    yield HorovodRanks(horovod)
