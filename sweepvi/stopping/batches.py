"""Means of iterates over batches of steps, of which there are never many.

Yeh & Schmeiser, "Simulation Output Analysis via Dynamic Batch Means", 2000: when there are too many batches, each two
neighbours become one. So memory does not grow with the fit, and batches become longer than what iterates remember of
each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Batches:
    """Batch means of iterates and of losses.

    Args:
        width: steps of a batch, at first.
        most: batches, at which they are merged; even.

    """

    def __init__(self, width: int, most: int) -> None:
        self.width, self._most = width, most
        self._iterates: list[Tensor] = []
        self._losses: list[float] = []

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def steps(self) -> int:
        """Steps in all of them."""
        return len(self) * self.width

    def add(self, iterates: Tensor, loss: float) -> None:
        """Take in a batch of :attr:`width` steps: the mean of its iterates, shape [D], and of its losses."""
        self._iterates.append(iterates)
        self._losses.append(loss)
        if len(self) == self._most:
            self._iterates = [(a + b) / 2 for a, b in zip(self._iterates[::2], self._iterates[1::2], strict=True)]
            self._losses = [(a + b) / 2 for a, b in zip(self._losses[::2], self._losses[1::2], strict=True)]
            self.width *= 2

    def iterates(self, count: int) -> Tensor:
        """The last ``count`` batch means of iterates: float64, shape [count, D]."""
        return torch.stack(self._iterates[-count:]).double()

    def losses(self, count: int) -> Tensor:
        """The last ``count`` batch means of losses: float64, shape [count, 1]."""
        return torch.tensor(self._losses[-count:], dtype=torch.float64, device="cpu")[:, None]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that there is: tensors by name, and plain data."""
        found = {"iterates": torch.stack(self._iterates)} if self._iterates else {}
        return found | {"losses": torch.tensor(self._losses, dtype=torch.float64, device="cpu")}, {"width": self.width}

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self._iterates = list(tensors["iterates"].unbind(0)) if "iterates" in tensors else []
        self._losses, self.width = tensors["losses"].tolist(), meta["width"]
