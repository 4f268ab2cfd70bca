"""Ranks that speak by NCCL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from sweepvi.distributed.by_torch import ByTorch
from sweepvi.distributed.ranks import Ranks
from sweepvi.errors import Problem


@dataclass(frozen=True)
class NCCL(ByTorch):
    """By torch's NCCL: NVIDIA GPUs, one a process."""

    def problems(self, device: str) -> list[Problem]:
        """See :meth:`Distributed.problems`."""
        found = super().problems(device)
        if not device.startswith("cuda"):
            found.append(Problem.of("distributed", "nccl", f"needs engine.device=cuda, not {device}; gloo runs there"))
        return found

    def joined(self, device: str) -> AbstractContextManager[Ranks]:
        """See :meth:`Distributed.joined`."""
        from sweepvi.distributed.torch_ranks import joined

        torch.cuda.set_device(device)
        return joined("nccl", self.launch, self.timeout, torch.device(device))
