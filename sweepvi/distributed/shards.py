"""Which entries of the data a rank sees: each epoch a new permutation of them is dealt out to the ranks.

The semantics of ``torch.utils.data.DistributedSampler``, as functions of the seed and the number of the minibatch:
entries are permuted anew each epoch, the same way on all ranks; the first entries are repeated at the end until the
number divides by that of the ranks; rank r gets every W-th from r on. A minibatch is the next part of that. What is
left at the end of an epoch, too few for a minibatch, is left out, as by ``drop_last``: in the next epoch it is others.

Each entry has the same chance, so Pyro's own factor, size over minibatch, is right on every rank, and the average over
ranks is an unbiased estimate for all of the data.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.errors import ConfigError, Problem
from sweepvi.private import is_subsample


def shard(size: int, seed: int, stream: str, epoch: int, rank: int, world_size: int) -> Tensor:
    """The entries that a rank sees in an epoch, in order: int64, shape [ceil(size / world_size)].

    Args:
        size: entries of the data.
        seed: that of the order of minibatches.
        stream: names what is permuted; another name, another permutation.
        epoch: from 0.
        rank: from 0.
        world_size: ranks.

    """
    digest = hashlib.blake2b(f"{seed} {stream} {epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest, "little") >> 1)
    order = torch.randperm(size, generator=generator, device="cpu")
    each = -(-size // world_size)
    return torch.cat([order, order[: each * world_size - size]])[rank::world_size]


class Dealer:
    """The minibatches of a rank.

    A plate that is entered several times in one evaluation, once a particle for example, has a stream of permutations
    for each of the times. Several parts of the data that one plate is asked for in different sizes would not be epochs
    of one stream; a plate's size and its minibatch's are part of the stream's name.

    Args:
        seed: that of the order of minibatches.
        rank: from 0.
        world_size: ranks.

    """

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._epochs: dict[str, tuple[int, Tensor]] = {}

    def batches(self, plate: str, size: int, taken: int) -> int:
        """Minibatches of an epoch; ``ConfigError`` if a rank has not enough entries for one."""
        most = -(-size // self._world_size)
        if taken > most:
            message = f"a rank has {most} of the {size} entries of plate {plate}, and cannot take {taken} at once"
            raise ConfigError(
                [Problem.of("distributed", f"{self._world_size} ranks", f"{message}; take {most} or fewer")]
            )
        return most // taken

    def minibatch(self, plate: str, size: int, taken: int, turn: int, number: int) -> Tensor:
        """The entries that a plate takes: int64, shape [taken], on the CPU.

        Args:
            plate: its name.
            size: entries that it has.
            taken: entries of a minibatch.
            turn: how often it has been entered before in the same evaluation.
            number: of the evaluation, from 0.

        """
        stream = f"{plate} {size} {taken} {turn}"
        epoch, batch = divmod(number, self.batches(plate, size, taken))
        known = self._epochs.get(stream)
        if known is None or known[0] != epoch:
            known = epoch, shard(size, self._seed, stream, epoch, self._rank, self._world_size)
            self._epochs[stream] = known
        return known[1][batch * taken : (batch + 1) * taken]


class Shards(Messenger):
    """Inside, plates that take minibatches take this rank's next ones.

    Args:
        seed: that of the order of minibatches.
        rank: from 0.
        world_size: ranks.

    """

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        super().__init__()
        self._dealer = Dealer(seed, rank, world_size)
        self._number = 0
        self._turns: Counter[str] = Counter()

    def at(self, number: int) -> Shards:
        """Itself, for the evaluation of this number, from 0."""
        self._number = number
        self._turns.clear()
        return self

    def _pyro_sample(self, msg: Any) -> None:
        if not is_subsample(msg) or msg["value"] is not None:
            return
        name, size, taken = msg["name"], msg["fn"].size, msg["fn"].subsample_size
        if taken is not None and taken < size:
            found = self._dealer.minibatch(name, size, taken, self._turns[name], self._number)
            self._turns[name] += 1
            msg["value"] = found.to(msg["fn"].device)
