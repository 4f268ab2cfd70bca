"""What the ``distributed`` group describes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from sweepvi.distributed.launch import Launch, launched
from sweepvi.distributed.ranks import Ranks
from sweepvi.errors import Problem
from sweepvi.keys import Key, Keyed


class Distributed(Keyed, ABC):
    """On how many processes a fit runs, and how they speak to each other."""

    @property
    @abstractmethod
    def launch(self) -> Launch:
        """Which of the fit's processes this is; the only one where there are no others."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.launch.rank == 0

    @abstractmethod
    def problems(self, device: str) -> list[Problem]:
        """What keeps this process from taking part, on a device of :class:`sweepvi.settings.Settings`."""

    @abstractmethod
    def device(self, device: str) -> str:
        """The device of this process, where ``device`` is what all are told."""

    @abstractmethod
    def joined(self, device: str) -> AbstractContextManager[Ranks]:
        """Inside, this process is one of the fit's; waits until all have come, and raises ``LostRanksError``."""


@dataclass(frozen=True)
class Parallel(Distributed, ABC):
    """Several processes: each has draws and minibatches of its own, and gradients are averaged before every update."""

    accumulate: Annotated[int, Key("gradients that a rank averages by itself before each update", ge=1)] = 1
    compression: Annotated[Literal["none", "bf16", "fp16"], Key("type that gradients are sent as; none: their own")] = (
        "none"
    )
    timeout: Annotated[float, Key("seconds that a rank waits for the others before it gives up", gt=0)] = 300.0

    start: ClassVar[str] = "torchrun --standalone --nproc_per_node 2 -m sweepvi …"
    """A command that starts two processes."""

    @property
    def known(self) -> Launch | None:
        """Which of the fit's processes this is; None if it was started alone."""
        return launched()

    @property
    def launch(self) -> Launch:
        """See :attr:`Distributed.launch`."""
        return self.known or Launch(0, 1, 0)

    def device(self, device: str) -> str:
        """See :meth:`Distributed.device`: with several processes on a machine, each has a GPU of its own."""
        return f"cuda:{self.launch.local_rank}" if device == "cuda" else device

    def problems(self, device: str) -> list[Problem]:
        """See :meth:`Distributed.problems`."""
        del device
        if self.known is None:
            name = type(self).__name__.lower()
            message = f"one process was started, by itself; start several: {self.start} (docs/distributed.md says more)"
            return [Problem.of("distributed", name, message)]
        return []
