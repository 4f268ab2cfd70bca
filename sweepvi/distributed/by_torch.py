"""What gloo and NCCL have in common: both are of ``torch.distributed``."""

from __future__ import annotations

import os
from abc import ABC
from dataclasses import dataclass

import torch.distributed as dist

from sweepvi.distributed.distributed import Parallel
from sweepvi.distributed.launch import Launch, launched


@dataclass(frozen=True)
class ByTorch(Parallel, ABC):
    """Ranks of ``torch.distributed``: those of its default group if there is one, else as the environment says."""

    @property
    def known(self) -> Launch | None:
        """See :attr:`Parallel.known`."""
        if not dist.is_initialized():
            return launched()
        rank = dist.get_rank()
        return Launch(rank, dist.get_world_size(), int(os.environ.get("LOCAL_RANK", rank)))
