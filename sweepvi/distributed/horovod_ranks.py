"""Ranks by ``horovod.torch``."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sweepvi.distributed.ranks import LostRanksError, Ranks
from sweepvi.errors import ConfigError, Problem


def demand_horovod() -> Any:
    """The module ``horovod.torch``; ``ConfigError`` if it cannot be imported, with the reason."""
    try:
        return importlib.import_module("horovod.torch")
    except ImportError as error:
        message = f"cannot be imported ({error}); docs/distributed.md says how it is built"
        raise ConfigError([Problem("horovod.torch", message)]) from error


class HorovodRanks(Ranks):
    """All processes of an initialized Horovod."""

    def __init__(self, horovod: Any) -> None:
        self._horovod = horovod
        self.rank, self.world_size = horovod.rank(), horovod.size()
        self._on_cuda = bool(horovod.nccl_built() or horovod.cuda_built())

    def sum_(self, tensor: Tensor) -> None:
        """See :meth:`Ranks.sum_`."""
        self._in_place(tensor, lambda sent: self._horovod.allreduce_(sent, op=self._horovod.Sum, name="sweepvi.sum"))

    def broadcast_(self, tensor: Tensor) -> None:
        """See :meth:`Ranks.broadcast_`."""
        self._in_place(tensor, lambda sent: self._horovod.broadcast_(sent, 0, name="sweepvi.broadcast"))

    def gathered(self, value: Any) -> list[Any]:
        """See :meth:`Ranks.gathered`."""
        with _lost(), torch.device("cpu"):
            return self._horovod.allgather_object(value, name="sweepvi.gathered")

    def from_first(self, value: Any) -> Any:
        """See :meth:`Ranks.from_first`."""
        with _lost(), torch.device("cpu"):
            return self._horovod.broadcast_object(value, 0, name="sweepvi.from_first")

    def _in_place(self, tensor: Tensor, operation: Any) -> None:
        sent = tensor if self._on_cuda else tensor.cpu()
        with _lost():
            operation(sent)
        if sent is not tensor:
            tensor.copy_(sent)


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # HorovodInternalError is one.
        reason = str(error).strip().splitlines()[0]
        raise LostRanksError(f"another rank is gone; it has said why itself ({reason})") from error
