"""The eager engine on one of several ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sweepvi.distributed import Parallel, Ranks, Shards, seed_rank
from sweepvi.engine.checkpoint import Snapshot, digest_of
from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.together import Together
from sweepvi.errors import CheckpointError
from sweepvi.geometry import Place
from sweepvi.private import unconstrained_params
from sweepvi.programs import Isolation
from sweepvi.recipe import Recipe, fingerprint

WORLD_SIZE = "world_size"
"""Under which a snapshot says how many ranks there were."""


class RankEngine(EagerEngine):
    """A fit in progress together with the other ranks, which all call the same methods.

    A rank's draws and minibatches are a function of the seed, the rank and the step. So all that a continuation needs
    is the same on all ranks, and rank 0 can save it without asking.

    Args:
        recipe: what to fit; it must be distributed.
        isolation: that of the environment.
        place: the coordinates to fit it in; None are the model's own.
        ranks: of the fit.

    """

    def __init__(self, recipe: Recipe, isolation: Isolation, place: Place | None, ranks: Ranks) -> None:
        self.ranks = ranks
        super().__init__(recipe, isolation, place)
        assert isinstance(recipe.distributed, Parallel)
        self._parts = recipe.distributed.accumulate
        self._together = Together(ranks, recipe.distributed.compression, self.modules, fingerprint(recipe))
        self._stream: tuple[int, int] | None = None
        self.asked = False
        """Whether this process has been asked to stop; to be set before a step."""
        self.all_asked = False
        """Whether a rank had been asked before the last step; the same on all ranks."""

    def meet(self) -> None:
        """Compare parameters with the other ranks', and take over rank 0's values; ``ConfigError`` if they differ."""
        self._together.meet()

    def step(self) -> float:
        """See :meth:`EagerEngine.step`; the loss is the average over the ranks."""
        self._stream = self.recipe.settings.seed, self.step_count
        try:
            return super().step()
        finally:
            self._stream = None

    def agreement(self) -> bool:
        """Whether parameters and optimizers are the same on all ranks, to the last bit."""
        snapshot = super().snapshot()
        common = {name: tensor for name, tensor in snapshot.tensors.items() if not name.startswith("random/")}
        return len(set(self.ranks.gathered(digest_of(common)))) == 1

    def snapshot(self) -> Snapshot:
        """See :meth:`EagerEngine.snapshot`."""
        snapshot = super().snapshot()
        snapshot.meta[WORLD_SIZE] = self.ranks.world_size
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """See :meth:`EagerEngine.restore`; ``CheckpointError`` if it was of another number of ranks."""
        demand_as_many(snapshot, self.ranks.world_size)
        super().restore(snapshot)

    def _minibatches(self) -> Shards:
        return Shards(self.recipe.settings.seed, self.ranks.rank, self.ranks.world_size)

    def _loss_and_gradients(self) -> float:
        reason = ""
        try:
            loss = self._accumulated()
        except NonFiniteError as error:
            loss, reason = math.nan, str(error)
        averaged = self._together.average(loss, self.asked)
        self.all_asked = averaged.asked
        if not averaged.finite:
            raise NonFiniteError(averaged.loss, self._reasons(loss, reason))
        return averaged.loss

    def _demand_finite(self, loss: float) -> None:
        """What all ranks have in common has been looked at."""

    def _accumulated(self) -> float:
        """The average of this rank's own losses of a step, its average gradient left in the parameters."""
        seed, step = self._stream or (torch.initial_seed(), torch.initial_seed())
        losses, sums = [], {}
        for part in range(self._parts):
            number = step * self._parts + part
            seed_rank(seed, self.ranks.rank, number)
            if isinstance(self._plates, Shards):
                self._plates.at(number)
            losses.append(super()._loss_and_gradients())
            if self._parts > 1:
                sums = _added(sums)
        for name, total in sums.items():
            unconstrained_params()[name].grad = total / self._parts
        return sum(losses) / len(losses)

    def _reasons(self, loss: float, reason: str) -> str:
        """What was not finite, on the ranks where something was not."""
        if not reason:
            try:
                super()._demand_finite(loss)
            except NonFiniteError as error:
                reason = str(error)
        found = {rank: text for rank, text in enumerate(self.ranks.gathered(reason)) if text}
        said = "; ".join(f"rank {rank}: {text}" for rank, text in found.items())
        return said or "the average of the ranks' gradients is not finite"


def _added(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums of gradients with those that parameters have now, which are taken away from them."""
    for name, param in unconstrained_params().items():
        if param.grad is not None:
            sums[name] = param.grad if name not in sums else sums[name] + param.grad
            param.grad = None
    return sums


def demand_as_many(snapshot: Snapshot, world_size: int) -> None:
    """Raise ``CheckpointError`` if a snapshot was of another number of ranks."""
    before = snapshot.meta.get(WORLD_SIZE, 1)
    if before != world_size:
        message = f"the run to resume was on {before} ranks, this is on {world_size}, which would draw otherwise"
        raise CheckpointError(f"{message}; start {before}, or a new run with rerun=")
