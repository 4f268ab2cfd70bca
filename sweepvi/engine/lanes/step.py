"""One step of all lanes as a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweepvi.engine.fits import SKIPS_IN_A_ROW
from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.lanes.noise import Sort
from sweepvi.engine.lanes.rank_lanes import RankLanes
from sweepvi.engine.lanes.update import Update
from sweepvi.optim.rule import Slots


@dataclass
class LaneState:
    """All that changes from step to step: every tensor has a leading dimension of lanes."""

    arena: Tensor
    """Unconstrained parameters, shape [K, D]."""
    slots: list[list[Slots]]
    """The optimizers', by form and group."""
    estimator: dict[str, Tensor]
    done: Tensor
    """Steps taken, those left out among them: float64, shape [K, 1]."""
    updates: Tensor
    """Updates made: float64, shape [K, 1]."""
    in_a_row: Tensor
    """Steps left out since the last update: float64, shape [K, 1]."""
    alive: Tensor
    """Whether the lane goes on: bool, shape [K, 1]."""
    means: dict[str, Tensor] = field(default_factory=dict)
    """Of the updates since the last look of a watch: means of ``arena`` after each, [K, D], and of ``loss`` before it,
    [K, 1]; and their ``count``, [K, 1]. Empty where nobody watches."""

    def of_forms(self, forms: Sequence[int]) -> LaneState:
        """With the slots of these forms of optimizers only, in their order."""
        return replace(self, slots=[self.slots[form] for form in forms])


@dataclass
class StepInput:
    """What is handed into a step."""

    noise: dict[Sort, Tensor]
    """Shape [K, numbers] each."""
    rows: list[Tensor]
    """Minibatches: shape [taken] where lanes share them, else [K, taken]."""
    factors: list[list[Tensor]]
    """The schedules', by form and group: float64, shape [K, 1]."""
    until: Tensor
    """No lane takes a step after this one: float64, shape [1, 1], or [K, 1] where each has its own."""


@dataclass
class Seen:
    """What is recorded of a step."""

    loss: Tensor
    """Every lane's loss before it, shape [K]."""
    ran: Tensor
    """Whether the lane took the step: bool, shape [K]."""
    moved: Tensor
    """Whether its parameters were updated: bool, shape [K]; if not, loss or gradient were not finite."""
    sizes: list[Tensor]
    """Step sizes that rules have found by themselves, by form and group, of those that look for one: shape [K, 1]."""


@dataclass
class LaneNumbers:
    """What differs between lanes and stays from step to step, beside the optimizers' hyperparameters."""

    last: Tensor
    """Steps after which each lane ends: float64, shape [K, 1]."""
    skips: Tensor
    """Whether a lane leaves out steps whose loss or gradient is not finite, and goes on: bool, [K, 1]."""
    estimator: dict[str, Tensor]
    """The estimator's numbers, by where they are: float64, shape [K]."""

    def tensors(self) -> list[Tensor]:
        """All of them, live."""
        return [self.last, self.skips, *self.estimator.values()]


class Step:
    """A step: gradients, what is to be done about those that are not finite, update.

    Args:
        captured: the loss.
        update: the optimizers.
        numbers: what else differs between lanes.
        together: over whom gradients are averaged.

    """

    def __init__(self, captured: Captured, update: Update, numbers: LaneNumbers, together: RankLanes) -> None:
        self.captured, self.update, self.numbers, self.together = captured, update, numbers, together

    def __call__(self, state: LaneState, given: StepInput) -> tuple[LaneState, Seen]:
        """The state after the step, and what is recorded of it."""
        numbers = self.numbers
        grad, loss, estimator = self.captured.gradients(
            state.arena, state.estimator, numbers.estimator, given.noise, given.rows
        )
        grad, loss, estimator = self.together.averaged(grad, loss, estimator)
        running = state.alive & (state.done < torch.minimum(numbers.last, given.until))
        finite = torch.isfinite(loss)[:, None] & torch.isfinite(grad).all(-1, keepdim=True)
        moves, fails = running & finite, running & ~finite
        arena, slots = self.update(grad, state.arena, state.slots, given.factors, state.updates + 1, state.done + 1)
        goes_on = numbers.skips & (state.in_a_row < SKIPS_IN_A_ROW)
        after = LaneState(
            arena=torch.where(moves, arena, state.arena),
            slots=_chosen(moves, slots, state.slots),
            estimator=_chosen(moves, estimator, state.estimator),
            done=state.done + (moves | (fails & goes_on)),
            updates=state.updates + moves,
            in_a_row=torch.where(moves, 0.0, state.in_a_row + fails),
            alive=state.alive & ~(fails & ~goes_on),
            means=_chosen(moves, _with(state.means, arena, loss), state.means),
        )
        sizes = [size for group in self.update.sizes(after.slots) for size in group if size is not None]
        return after, Seen(loss, running.squeeze(-1), moves.squeeze(-1), sizes)


def _with(means: dict[str, Tensor], arena: Tensor, loss: Tensor) -> dict[str, Tensor]:
    """Running means with one more step in them."""
    if not means:
        return means
    count = means["count"] + 1
    mean, own = means["arena"], means["loss"]
    return {
        "arena": mean + (arena - mean) / count.to(mean.dtype),
        "loss": own + (loss[:, None] - own) / count,
        "count": count,
    }


def _chosen(condition: Tensor, yes: Any, no: Any) -> Any:
    """Leaf by leaf of two trees, by lane."""

    def leaf(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *[1] * (one.dim() - 1)), one, other)

    return pytree.tree_map(leaf, yes, no)


for _tree in (LaneState, StepInput, Seen):
    pytree.register_dataclass(_tree)
