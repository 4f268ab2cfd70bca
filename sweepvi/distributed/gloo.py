"""Ranks that speak by gloo."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sweepvi.distributed.by_torch import ByTorch
from sweepvi.distributed.ranks import Ranks


@dataclass(frozen=True)
class Gloo(ByTorch):
    """By torch's gloo: processors, on one machine or several; needs nothing else."""

    def joined(self, device: str) -> AbstractContextManager[Ranks]:
        """See :meth:`Distributed.joined`."""
        from sweepvi.distributed.torch_ranks import joined

        del device
        return joined("gloo", self.launch, self.timeout, torch.device("cpu"))
