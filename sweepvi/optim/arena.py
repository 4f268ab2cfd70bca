"""A rule over an arena: K independent fits of D numbers each, updated as one, as a pure function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sweepvi.optim.clip import clipped
from sweepvi.optim.rule import Hyper, Rule, Slots, Step


@dataclass(frozen=True)
class _Part:
    """Neighbouring columns with one rule."""

    rule: Rule
    shapes: tuple[torch.Size, ...]
    columns: slice


class Arena:
    """The update of an arena ``[K, D]``, lane by lane what :class:`RuleOptimizer` does to one fit.

    Args:
        rule: the rule; its numbers are defaults for ``hyper``.
        shapes: parameter name → shape, in the order of the columns; D is the sum of their sizes.

    """

    def __init__(self, rule: Rule, shapes: Mapping[str, torch.Size]) -> None:
        self.rule = rule
        self.sizes = [math.prod(shape) for shape in shapes.values()]
        self._parts: list[_Part] = []
        start = 0
        for (name, shape), size in zip(shapes.items(), self.sizes, strict=True):
            own = rule.for_parameter(name, torch.empty(shape, device="meta"))
            last = self._parts[-1] if self._parts else None
            if last is not None and own.scope != "parameter" and last.rule == own:
                joined = slice(last.columns.start, start + size)
                self._parts[-1] = _Part(own, (*last.shapes, shape), joined)
            else:
                self._parts.append(_Part(own, (shape,), slice(start, start + size)))
            start += size

    def init(self, arena: Tensor, hyper: Hyper) -> Slots:
        """Slots before the first update: ``part/slot`` → tensor with a leading dimension of lanes.

        Args:
            arena: parameters, ``[K, D]``.
            hyper: see :meth:`update`.

        """
        slots: Slots = {}
        for place, part in enumerate(self._parts):
            for name, slot in self._init(part, arena, hyper).items():
                slots[f"{place}/{name}"] = slot
        return slots

    def update(
        self,
        grad: Tensor,
        arena: Tensor,
        slots: Slots,
        hyper: Hyper,
        step: Step,
        clock: Step | None = None,
        global_norm: Tensor | None = None,
    ) -> tuple[Tensor, Slots]:
        """One update of every lane.

        Args:
            grad: gradients of the lanes' losses, ``[K, D]``.
            arena: parameters, ``[K, D]``.
            slots: as after the last update.
            hyper: every hyperparameter by key, a number or a float64 tensor ``[K, 1]``; bounds under ``clip`` too.
            step: number of this update from 1, a number or a float64 tensor ``[K, 1]``.
            clock: what schedules and decay go by; ``step`` unless steps were left out.
            global_norm: norm of all gradients, ``[K, 1]``, if there are more than these.

        Returns:
            The new arena and slots; nothing is changed in place.

        """
        decay = self.rule.decay(hyper, step if clock is None else clock)
        hyper = {**hyper, self.rule.rate: hyper[self.rule.rate] * decay}
        if hyper["clip"]:
            grad = clipped(grad, hyper["clip"], self.sizes, global_norm)
        deltas, new = [], {}
        for place, part in enumerate(self._parts):
            delta, own = self._update(
                part, grad[:, part.columns], arena[:, part.columns], _own(slots, place), hyper, step
            )
            deltas.append(delta)
            new |= {f"{place}/{name}": slot for name, slot in own.items()}
        return arena + torch.cat(deltas, dim=-1), new

    def evaluated(self, arena: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The points to use as results, ``[K, D]``: see :meth:`Rule.evaluated`."""
        parts = [
            part.rule.evaluated(arena[:, part.columns], _own(slots, place), hyper)
            for place, part in enumerate(self._parts)
        ]
        return torch.cat(parts, dim=-1)

    def size(self, slots: Slots) -> Tensor | None:
        """The factor on its step size that a rule has found, ``[K, 1]``; None if it looks for none."""
        found = self.rule.size(_own(slots, 0)) if slots else 1.0
        return found if isinstance(found, Tensor) else None

    def _init(self, part: _Part, arena: Tensor, hyper: Hyper) -> Slots:
        columns = arena[:, part.columns]
        if part.rule.scope != "parameter":
            return part.rule.init(columns, hyper)
        lanes = columns.unflatten(-1, part.shapes[0]) if part.shapes[0] else columns.squeeze(-1)
        each = [part.rule.init(lane, _of_lane(hyper, k)) for k, lane in enumerate(lanes)]
        return {name: torch.stack([slots[name] for slots in each]) for name in each[0]}

    def _update(
        self, part: _Part, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper, step: Step
    ) -> tuple[Tensor, Slots]:
        hyper = {**hyper, **part.rule.scalars(hyper, step)}
        if part.rule.scope != "parameter":
            return part.rule.update(grad, param, slots, hyper)
        shape = (len(param), *part.shapes[0])
        tensors, rebuild = _split(hyper)

        def one(grad: Tensor, param: Tensor, slots: Slots, own: list[Tensor]) -> tuple[Tensor, Slots]:
            return part.rule.update(grad, param, slots, rebuild(own))

        delta, slots = torch.vmap(one)(grad.reshape(shape), param.reshape(shape), slots, tensors)
        return delta.reshape(param.shape), slots


def _own(slots: Slots, place: int) -> Slots:
    """The slots of a part, by their own names."""
    return {key.partition("/")[2]: slot for key, slot in slots.items() if key.startswith(f"{place}/")}


def _split(tree: Hyper) -> tuple[list[Tensor], Callable[[list[Tensor]], Hyper]]:
    """The lanes' tensors in a tree of hyperparameters, each ``[K]``, and how to put others in their place."""
    tensors: list[Tensor] = []

    def taken(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.dim()):
            return leaf
        tensors.append(leaf.reshape(-1))
        return _Place(len(tensors) - 1)

    places = _mapped(taken, tree)
    return tensors, lambda own: _mapped(lambda leaf: own[leaf.index] if isinstance(leaf, _Place) else leaf, places)


@dataclass(frozen=True)
class _Place:
    """Where a lane's tensor was."""

    index: int


def _of_lane(hyper: Hyper, lane: int) -> Hyper:
    """One lane's hyperparameters."""
    return _mapped(lambda leaf: leaf[lane, 0] if isinstance(leaf, Tensor) and leaf.dim() else leaf, hyper)


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """A tree of mappings and tuples with a function of each leaf."""
    if isinstance(tree, Mapping):
        return {key: _mapped(function, entry) for key, entry in tree.items()}
    if isinstance(tree, list | tuple):
        return tuple(_mapped(function, entry) for entry in tree)
    return function(tree)
