"""What is recorded of lanes, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunk:
    """Some steps of all lanes, on the CPU: every tensor has shape [T, K]."""

    losses: Tensor
    ran: Tensor
    moved: Tensor
    rates: list[list[Tensor]]
    """Effective step sizes, by form and group of parameters."""


@dataclass
class Course:
    """One lane's steps."""

    losses: Tensor
    """float64, shape [steps]; the last one is that of the step at which it diverged, if it did."""
    rates: dict[str, Tensor]
    """By label of the group of parameters, as long."""
    skipped: list[int]
    """Steps left out, from 1; that of a divergence is among them."""


class Record:
    """Chunks, and from which on each lane has been the fit that it is."""

    def __init__(self, lanes: int) -> None:
        self.chunks: list[Chunk] = []
        self._since = [0] * lanes
        self._before: dict[int, Course] = {}

    def start(self, lane: int, before: Course | None = None) -> None:
        """From now on, a lane is another fit, which may have taken steps elsewhere."""
        self._since[lane] = len(self.chunks)
        self._before.pop(lane, None)
        if before is not None:
            self._before[lane] = before

    def forget(self, lanes: Iterable[int]) -> None:
        """Let go of the chunks that none of these lanes needs."""
        since = min((self._since[lane] for lane in lanes), default=len(self.chunks))
        del self.chunks[:since]
        self._since = [max(0, place - since) for place in self._since]

    def losses(self, lane: int) -> Tensor:
        """A lane's losses so far, float64."""
        chunks, before = self.chunks[self._since[lane] :], self._before.get(lane)
        ran = _joined([chunk.ran[:, lane] for chunk in chunks], torch.bool)
        losses = _joined([chunk.losses[:, lane] for chunk in chunks], torch.float64)[ran]
        return losses if before is None else torch.cat([before.losses, losses])

    def course(self, lane: int, form: int, labels: list[str]) -> Course:
        """A lane's steps so far, under optimizers of the given form."""
        chunks = self.chunks[self._since[lane] :]
        before = self._before.get(lane)
        ran = _joined([chunk.ran[:, lane] for chunk in chunks], torch.bool)
        moved = _joined([chunk.moved[:, lane] for chunk in chunks], torch.bool)[ran]
        rates = {
            label: _joined([chunk.rates[form][place][:, lane] for chunk in chunks], torch.float64)[ran]
            for place, label in enumerate(labels)
        }
        skipped = [place + 1 for place in (~moved).nonzero().flatten().tolist()]
        if before is None:
            return Course(self.losses(lane), rates, skipped)
        return Course(
            self.losses(lane),
            {label: torch.cat([before.rates[label], own]) for label, own in rates.items()},
            before.skipped + [step + len(before.losses) for step in skipped],
        )


def _joined(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(parts).to(dtype) if parts else torch.empty(0, dtype=dtype, device="cpu")
