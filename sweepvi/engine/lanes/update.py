"""The update of an arena in which every lane has hyperparameters, and rules, of its own.

Lanes whose parameters are in the same groups under rules of the same form share a plan; their numbers are tensors.
Every plan is evaluated on the whole arena, and each lane takes what its own plan says: so another optimizer in a lane
is another number, and not another program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweepvi.optim.arena import Arena
from sweepvi.optim.rule import Rule, Slots
from sweepvi.schedule import Constant, Schedule

Tree: TypeAlias = Any
"""Nested lists, mappings and tuples of tensors."""


@dataclass(frozen=True)
class Group:
    """Parameters that one rule updates."""

    label: str
    rule: Rule
    names: tuple[str, ...]
    """Its parameters, in the order of the arena's columns."""
    shares_norm: bool = False
    """Whether a bound on the norm of all gradients is one with other groups."""
    lr_factor: float = 1.0
    """Factor on the rule's step size."""
    schedule: Schedule = field(default_factory=Constant)
    """Of the step size; the one who calls the update asks it."""

    def hyper(self) -> Tree:
        """The rule's hyperparameters, with the group's own step size."""
        hyper = self.rule.hyper()
        return {**hyper, self.rule.rate: hyper[self.rule.rate] * self.lr_factor}


Plan: TypeAlias = tuple[Group, ...]
"""How a lane's parameters are optimized; those that are frozen are in no group."""


def form(plan: Plan) -> tuple[Any, ...]:
    """What lanes must have in common to share a plan: everything but numbers."""
    return tuple(
        (type(group.rule), group.label, group.names, group.shares_norm, _shape_of(group.hyper())) for group in plan
    )


class Update:
    """A step of all lanes.

    Args:
        plans: each lane's.
        shapes: parameter name → shape, in the order of the arena's columns.
        device: of the arena.
        later: plans of forms that lanes may have later.

    """

    def __init__(
        self,
        plans: Sequence[Plan],
        shapes: Mapping[str, torch.Size],
        device: torch.device,
        later: Sequence[Plan] = (),
    ) -> None:
        forms = [form(plan) for plan in plans]
        known = {form(plan): plan for plan in reversed([*plans, *later])}
        self.forms = list(dict.fromkeys([*forms, *map(form, later)]))
        self.plans = list(plans)
        self.index = torch.tensor([[self.forms.index(each)] for each in forms], device=device)
        """Which form each lane has: int64, shape [K, 1]."""
        self.models = [known[each] for each in self.forms]
        """A plan of each form."""
        self.parts = [_Parts(plan, shapes, device) for plan in self.models]
        self.hyper: list[list[Tree]] = [
            _hyper([plan if forms[k] == each else self.models[place] for k, plan in enumerate(plans)], device)
            for place, each in enumerate(self.forms)
        ]
        """By form and group. Lanes of other forms calculate with the numbers of the first that has this one, and
        nobody reads it."""

    def tensors(self) -> list[Tensor]:
        """What differs between lanes, live."""
        return [self.index, *(leaf for leaf in pytree.tree_leaves(self.hyper) if isinstance(leaf, Tensor))]

    def put(self, lane: int, plan: Plan) -> None:
        """Let a lane have another plan; ``KeyError`` if none of that form was known at the start."""
        if form(plan) not in self.forms:
            raise KeyError("no plan of this form was known")
        place = self.forms.index(form(plan))
        self.plans[lane] = plan
        self.index[lane] = place
        for mine, own in zip(self.hyper[place], _hyper([plan], self.index.device), strict=True):
            for leaf, value in zip(pytree.tree_leaves(mine), pytree.tree_leaves(own), strict=True):
                if isinstance(leaf, Tensor):
                    leaf[lane] = value[0]

    def of_lanes(self, lanes: Tensor) -> list[list[Tree]]:
        """The hyperparameters of some lanes."""
        return pytree.tree_map(lambda leaf: leaf[lanes] if isinstance(leaf, Tensor) else leaf, self.hyper)

    def init(self, arena: Tensor, lanes: Tensor) -> list[list[Slots]]:
        """Slots before the first update, by form and group, of some lanes with these parameters."""
        return [
            [part.arena.init(part.of(arena), hyper) for part, hyper in zip(parts.parts, hypers, strict=True)]
            for parts, hypers in zip(self.parts, self.of_lanes(lanes), strict=True)
        ]

    def evaluated(self, arena: Tensor, slots: list[list[Slots]]) -> Tensor:
        """The points to use as results, which for optimizers that average are averages: shape [K, D]."""
        results = arena
        for place, (parts, hypers) in enumerate(zip(self.parts, self.hyper, strict=True)):
            found = arena
            for part, own, hyper in zip(parts.parts, slots[place], hypers, strict=True):
                found = part.into(found, part.arena.evaluated(part.of(arena), own, hyper))
            results = torch.where(self.index == place, found, results)
        return results

    def sizes(self, slots: list[list[Slots]]) -> list[list[Tensor | None]]:
        """By form and group, the factors on the step size that rules have found: [K, 1]; None where there is none."""
        return [
            [part.arena.size(own) for part, own in zip(parts.parts, slots[place], strict=True)]
            for place, parts in enumerate(self.parts)
        ]

    def rate(self, place: int, group: int, clock: Tensor) -> Tensor:
        """A group's step size with the rule's decay, without schedule: float64, shape [T, K], for a clock of that."""
        part, hyper = self.parts[place].parts[group], self.hyper[place][group]
        rows = pytree.tree_map(lambda leaf: leaf.squeeze(-1) if isinstance(leaf, Tensor) else leaf, hyper)
        decay = part.arena.rule.decay(rows, clock)
        return (rows[part.rate] * decay).expand(clock.shape)

    def __call__(
        self,
        grad: Tensor,
        arena: Tensor,
        slots: list[list[Slots]],
        factors: list[list[Tensor]],
        step: Tensor,
        clock: Tensor,
    ) -> tuple[Tensor, list[list[Slots]]]:
        """One update of every lane.

        Args:
            grad: gradients, shape [K, D].
            arena: parameters, shape [K, D].
            slots: as after the last update.
            factors: of form and group, what multiplies the step size: float64, shape [K, 1].
            step: number of this update from 1: float64, shape [K, 1].
            clock: steps of the fit, with those left out: float64, shape [K, 1].

        """
        moved, new = arena, []
        for place, parts in enumerate(self.parts):
            found, own = parts(grad, arena, slots[place], self.hyper[place], factors[place], step, clock)
            moved = found if place == 0 else torch.where(self.index == place, found, moved)
            new.append(own)
        return moved, new


@dataclass(frozen=True)
class _Part:
    """A group's columns and what updates them."""

    arena: Arena
    columns: Tensor | None
    """int64; None is all of them, in order."""
    rate: str
    shares_norm: bool

    def of(self, tensor: Tensor) -> Tensor:
        return tensor if self.columns is None else tensor.index_select(-1, self.columns)

    def into(self, whole: Tensor, found: Tensor) -> Tensor:
        return found if self.columns is None else whole.index_copy(-1, self.columns, found)


class _Parts:
    """The groups of one form."""

    def __init__(self, plan: Plan, shapes: Mapping[str, torch.Size], device: torch.device) -> None:
        starts, total = {}, 0
        for name, shape in shapes.items():
            starts[name] = total
            total += shape.numel()
        self.parts = []
        for group in plan:
            own = {name: shapes[name] for name in group.names}
            columns = [place for name in own for place in range(starts[name], starts[name] + own[name].numel())]
            chosen = None if columns == list(range(total)) else torch.tensor(columns, device=device)
            self.parts.append(_Part(Arena(group.rule, own), chosen, group.rule.rate, group.shares_norm))

    def __call__(
        self,
        grad: Tensor,
        arena: Tensor,
        slots: list[Slots],
        hypers: list[Tree],
        factors: list[Tensor],
        step: Tensor,
        clock: Tensor,
    ) -> tuple[Tensor, list[Slots]]:
        norm = self._norm(grad)
        moved, new = arena, []
        for part, own, hyper, factor in zip(self.parts, slots, hypers, factors, strict=True):
            hyper = {**hyper, part.rate: hyper[part.rate] * factor}
            shared = norm if part.shares_norm else None
            found, state = part.arena.update(part.of(grad), part.of(arena), own, hyper, step, clock, shared)
            moved = part.into(moved, found)
            new.append(state)
        return moved, new

    def _norm(self, grad: Tensor) -> Tensor | None:
        sharing = [part for part in self.parts if part.shares_norm]
        if len(sharing) < 2:
            return None
        norms = [torch.linalg.vector_norm(part.of(grad), dim=-1, dtype=torch.float64) for part in sharing]
        return torch.linalg.vector_norm(torch.stack(norms, -1), dim=-1, keepdim=True)


def _hyper(plans: Sequence[Plan], device: torch.device) -> list[Tree]:
    """By group, the hyperparameters of lanes of one form: float64 tensors [K, 1] where they are numbers."""
    trees = [[group.hyper() for group in plan] for plan in plans]
    return [
        _joined(list(lanes), lambda numbers: torch.tensor(numbers, dtype=torch.float64, device=device)[:, None])
        for lanes in zip(*trees, strict=True)
    ]


def _joined(lanes: list[Tree], join: Callable[[list[float]], Tensor]) -> Tree:
    first = lanes[0]
    if isinstance(first, Mapping):
        return {key: _joined([lane[key] for lane in lanes], join) for key in first}
    if isinstance(first, list | tuple):
        return tuple(_joined([lane[place] for lane in lanes], join) for place in range(len(first)))
    return join(lanes) if _is_number(first) else first


def _shape_of(tree: Tree) -> Tree:
    if isinstance(tree, Mapping):
        return tuple((key, _shape_of(value)) for key, value in tree.items())
    if isinstance(tree, list | tuple):
        return tuple(map(_shape_of, tree))
    return float if _is_number(tree) else tree


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
