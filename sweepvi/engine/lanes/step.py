"""One step of all lanes as a pure function, and its trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.lanes.noise import Sort
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
    alive: Tensor
    """Whether the lane goes on: bool, shape [K, 1]."""


@dataclass
class StepInput:
    """What is handed into a step."""

    noise: dict[Sort, Tensor]
    """Shape [K, numbers] each."""
    rows: list[Tensor]
    """Minibatches, which lanes share."""
    factors: list[list[Tensor]]
    """The schedules', by form and group: float64, shape [K, 1]."""


class Step:
    """A step: gradients, what is to be done about those that are not finite, update.

    Args:
        captured: the loss.
        update: the optimizers.
        skips: whether a lane leaves out steps whose loss or gradient is not finite, and goes on: bool, [K, 1].
        last: steps after which each lane ends: float64, shape [K, 1].

    """

    def __init__(self, captured: Captured, update: Update, skips: Tensor, last: Tensor) -> None:
        self.captured, self.update, self.skips, self.last = captured, update, skips, last

    def __call__(self, state: LaneState, given: StepInput) -> tuple[LaneState, Tensor, Tensor]:
        """The state after the step; every lane's loss before it, shape [K], and whether it has moved, shape [K]."""
        grad, loss, estimator = self.captured.gradients(state.arena, state.estimator, given.noise, given.rows)
        running = state.alive & (state.done < self.last)
        finite = torch.isfinite(loss)[:, None] & torch.isfinite(grad).all(-1, keepdim=True)
        moves = running & finite
        arena, slots = self.update(grad, state.arena, state.slots, given.factors, state.updates + 1, state.done + 1)
        after = LaneState(
            arena=torch.where(moves, arena, state.arena),
            slots=_chosen(moves, slots, state.slots),
            estimator=_chosen(moves, estimator, state.estimator),
            done=state.done + (running & (finite | self.skips)),
            updates=state.updates + moves,
            alive=state.alive & (finite | self.skips | ~running),
        )
        return after, loss, moves.squeeze(-1)


def _chosen(condition: Tensor, yes: Any, no: Any) -> Any:
    """Leaf by leaf of two trees, by lane."""

    def leaf(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *[1] * (one.dim() - 1)), one, other)

    return pytree.tree_map(leaf, yes, no)


pytree.register_dataclass(LaneState)
pytree.register_dataclass(StepInput)


def traced(step: Step, state: LaneState, given: StepInput) -> Callable[[LaneState, StepInput], Any]:
    """The step as a list of tensor operations, for lanes of this number: several times as fast."""
    leaves, spec = pytree.tree_flatten((state, given))
    outs: list[Any] = []

    def flat(*leaves: Tensor) -> list[Tensor]:
        found, out = pytree.tree_flatten(step(*pytree.tree_unflatten(list(leaves), spec)))
        outs[:] = [out]
        return found

    with torch.no_grad():
        graph = make_fx(flat)(*leaves)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    [out] = outs

    def run(state: LaneState, given: StepInput) -> Any:
        with torch.no_grad():
            return pytree.tree_unflatten(graph(*pytree.tree_leaves((state, given))), out)

    return run
