"""What the processes of one fit say to each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import SweepviError


class LostRanksError(SweepviError, ConnectionError):
    """Another process of the fit has ended, or does not answer."""


class Ranks(ABC):
    """The processes of a fit, seen from one of them. Every method is called by all of them, in the same order.

    Methods raise ``LostRanksError`` where another process is gone, or does not call them in time.

    Attributes:
        rank: number of this process, from 0.
        world_size: how many there are.
        recordable: whether sums of tensors of a CUDA device can be part of a CUDA graph.

    """

    rank: int
    world_size: int
    recordable: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.rank == 0

    @abstractmethod
    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor, of equal shape and dtype on all ranks, by the sum of all ranks'; equal bits on all."""

    @abstractmethod
    def broadcast_(self, tensor: Tensor) -> None:
        """Replace a tensor by that of rank 0."""

    @abstractmethod
    def gathered(self, value: Any) -> list[Any]:
        """What each rank gives, plain data, by rank."""

    @abstractmethod
    def from_first(self, value: Any) -> Any:
        """What rank 0 gives."""

    def average_(self, tensor: Tensor) -> None:
        """Replace a tensor by the average over the ranks; equal bits on all."""
        # Before the sum, where half-precision numbers have less room.
        self.sum_(tensor.div_(self.world_size))


class Alone(Ranks):
    """One process."""

    rank, world_size, recordable = 0, 1, True

    def sum_(self, tensor: Tensor) -> None:
        """Nothing to add."""
        del tensor

    def broadcast_(self, tensor: Tensor) -> None:
        """Nobody to tell."""
        del tensor

    def gathered(self, value: Any) -> list[Any]:
        """Its own."""
        return [value]

    def from_first(self, value: Any) -> Any:
        """Its own."""
        return value


HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What gradients are sent as, by the name of the compression."""


def average_compressed_(ranks: Ranks, tensor: Tensor, compression: str) -> None:
    """Average a tensor in place, sent as the compression says: ``none``, ``bf16`` or ``fp16``."""
    if compression == "none":
        ranks.average_(tensor)
        return
    sent = tensor.div(ranks.world_size).to(HALF[compression])
    ranks.sum_(sent)
    tensor.copy_(sent)
