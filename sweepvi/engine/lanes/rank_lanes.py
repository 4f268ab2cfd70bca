"""Lanes on several ranks: each lane of a rank is one fit with that lane of the others, all along one average gradient.

All lanes' gradients are averaged by one all-reduce of [K, D] a step, with losses and the estimator's state beside them.
It is an operation of the traced step like any other, one that cannot be looked into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sweepvi.distributed import Alone, Dealer, Ranks
from sweepvi.distributed.ranks import average_compressed_
from sweepvi.engine.lanes.minibatches import Minibatch, filled

STREAMS = 1 << 8
"""Streams of noise that a rank has for itself: numbers of different streams have nothing to do with each other."""

_SPEAKING: list[Ranks] = []
"""Who averages, innermost last: an operation takes tensors alone."""


@torch.library.custom_op("sweepvi::averaged_over_ranks", mutates_args=())
def _averaged(tensor: Tensor, compression: str) -> Tensor:
    found = tensor.clone()
    average_compressed_(_SPEAKING[-1], found, compression)
    return found


@_averaged.register_fake
def _(tensor: Tensor, compression: str) -> Tensor:
    del compression
    return torch.empty_like(tensor)


@contextmanager
def speaking(ranks: Ranks) -> Iterator[None]:
    """Inside, averages are over these ranks."""
    _SPEAKING.append(ranks)
    try:
        yield
    finally:
        _SPEAKING.pop()


class RankLanes:
    """What lanes of this process have to do with those of the other ranks, if there are some.

    Every method but :meth:`noise_stream` and :meth:`minibatches` is called by all ranks, in the same order.

    Args:
        ranks: of the fits.
        compression: what gradients are sent as: ``none``, ``bf16`` or ``fp16``.

    """

    def __init__(self, ranks: Ranks, compression: str = "none") -> None:
        self.ranks, self._compression = ranks, compression
        self._dealers: dict[int, Dealer] = {}

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return isinstance(self.ranks, Alone)

    def noise_stream(self, stream: int = 0) -> int:
        """In place of a stream of a process that is alone, one of this rank's own."""
        return self.ranks.rank * STREAMS + stream

    def minibatches(self, choices: Sequence[Minibatch], data_seed: int, steps: Tensor) -> list[Tensor]:
        """The entries that plates choose on this rank: see :func:`sweepvi.engine.lanes.minibatches.filled`.

        Of several ranks, each has its part of a permutation an epoch: see :mod:`sweepvi.distributed.shards`.
        """
        if self.alone:
            return filled(list(choices), data_seed, steps)
        dealer = self._dealer(data_seed)
        turns: Counter[str] = Counter()
        found = []
        for choice in choices:
            rows = [
                dealer.minibatch(choice.plate, choice.size, choice.taken, turns[choice.plate], number)
                for number in steps.flatten().tolist()
            ]
            turns[choice.plate] += 1
            found.append(torch.stack(rows).to(steps.device).unflatten(0, steps.shape))
        return found

    def demand_enough(self, choices: Sequence[Minibatch]) -> None:
        """Raise ``ConfigError`` if a rank has not enough entries for a minibatch."""
        if not self.alone:
            for choice in choices:
                self._dealer(0).batches(choice.plate, choice.size, choice.taken)

    def _dealer(self, seed: int) -> Dealer:
        return self._dealers.setdefault(seed, Dealer(seed, self.ranks.rank, self.ranks.world_size))

    def averaged(
        self, grad: Tensor, loss: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradients [K, D], losses [K] and the estimator's state, [K, …] each, as averages over the ranks."""
        if self.alone:
            return grad, loss, dict(state)
        exact = [loss[:, None], *(value.flatten(1) for value in state.values())]
        widths = [part.shape[1] for part in exact]
        numbers = torch.cat([part.to(grad.dtype) for part in exact], -1)
        if self._compression == "none":
            both = _averaged(torch.cat([numbers, grad], -1), "none")
            numbers, grad = both[:, : sum(widths)], both[:, sum(widths) :]
        else:
            numbers, grad = _averaged(numbers, "none"), _averaged(grad.contiguous(), self._compression)
        loss, *rows = numbers.split(widths, -1)
        averages = [row.reshape(own.shape).to(own.dtype) for own, row in zip(state.values(), rows, strict=True)]
        return grad, loss.squeeze(-1), dict(zip(state, averages, strict=True))

    def average(self, tensor: Tensor) -> Tensor:
        """The average of what the ranks have, of the shape of each."""
        if self.alone:
            return tensor
        found = tensor.clone()
        self.ranks.average_(found)
        return found

    def any(self, one: bool, device: torch.device) -> bool:
        """Whether it is so on some rank."""
        if self.alone:
            return one
        count = torch.tensor([float(one)], device=device)
        self.ranks.sum_(count)
        return bool(count > 0)


ALONE = RankLanes(Alone())
"""Of one process."""
