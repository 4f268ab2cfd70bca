"""Ranks by ``torch.distributed``."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from sweepvi.distributed.launch import Launch
from sweepvi.distributed.ranks import LostRanksError, Ranks


class TorchRanks(Ranks):
    """The default process group; objects are sent from ``device``."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world_size, self._device = dist.get_rank(), dist.get_world_size(), device
        # Gloo takes tensors to the host, and waits for the others there.
        self.recordable = dist.get_backend() == "nccl"

    def sum_(self, tensor: Tensor) -> None:
        """See :meth:`Ranks.sum_`."""
        with _lost("gradients are averaged"):
            dist.all_reduce(tensor)

    def broadcast_(self, tensor: Tensor) -> None:
        """See :meth:`Ranks.broadcast_`."""
        with _lost("parameters are sent"):
            dist.broadcast(tensor, 0)

    def gathered(self, value: Any) -> list[Any]:
        """See :meth:`Ranks.gathered`."""
        found: list[Any] = [None] * self.world_size
        with self._sending():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """See :meth:`Ranks.from_first`."""
        box = [value if self.leads else None]
        with self._sending():
            dist.broadcast_object_list(box, 0)
        return box[0]

    @contextmanager
    def _sending(self) -> Iterator[None]:
        # Inside a fit, another default device may be set, and torch makes its buffers there.
        with _lost("ranks compare what they have"), self._device:
            yield


@contextmanager
def _lost(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostRanksError(f"another rank is gone, while {what}; it has said why itself ({reason})") from error


@contextmanager
def joined(backend: str, launch: Launch, timeout: float, device: torch.device) -> Iterator[Ranks]:
    """Inside, the default process group has all ranks. One that exists already is used.

    It is left as it is, for the next fit: a rank that has ended one and met the others anew, at the same address, could
    find the group that rank 0 has not left yet.
    """
    if dist.is_initialized():
        yield TorchRanks(device)
        return
    with _lost("ranks meet"):
        dist.init_process_group(
            backend,
            store=_store(launch, timedelta(seconds=timeout)),
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=timedelta(seconds=timeout),
        )
    atexit.register(_leave)
    yield TorchRanks(device)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _store(launch: Launch, timeout: timedelta) -> Store:
    """Where ranks find each other's addresses.

    torchrun keeps its own over restarts, in which ranks would find addresses of those that have died, and wait for them
    for ever: every start has names of its own.
    """
    host, _, port = launch.address.rpartition(":")
    hosts = launch.rank == 0 and not dist.is_torchelastic_launched()
    store = TCPStore(host, int(port), launch.world_size, hosts, timeout, wait_for_workers=False)
    return PrefixStore(f"sweepvi/{launch.restarts}", store)
