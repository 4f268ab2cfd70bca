"""What a checkpoint has for parameters and groups that do not exist yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

SCHEDULE = "schedule"
"""What names of tensors that belong to schedules begin with; no slot is called so."""


@dataclass
class Waiting:
    """State of an :class:`~sweepvi.engine.optimization.Optimization`, by parameter and by group, until each appears."""

    slots: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameter → slot → tensor or number."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Parameter → label of its group."""
    schedules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Label → the state of the group's schedule."""
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Label → what else the group keeps, plain data."""

    def over(self, live: Waiting) -> Waiting:
        """All that is live, and what still waits."""
        return Waiting(
            self.slots | live.slots,
            self.shapes | live.shapes,
            self.labels | live.labels,
            self.schedules | live.schedules,
            self.groups | live.groups,
        )

    def packed(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors as ``slot/parameter`` and ``schedule/label/name``; and what is no tensor, as JSON can hold it."""
        entries = {f"{slot}/{name}": value for name, slots in self.slots.items() for slot, value in slots.items()}
        tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
        schedules = {
            f"{SCHEDULE}/{label}/{name}": value
            for label, state in self.schedules.items()
            for name, value in state.items()
        }
        meta = {
            "scalars": {key: value for key, value in entries.items() if not isinstance(value, Tensor)},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "labels": self.labels,
            "groups": self.groups,
        }
        return tensors | schedules, meta

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Waiting:
        """What :meth:`packed` has packed."""
        shapes = {name: tuple(shape) for name, shape in meta["shapes"].items()}
        waiting = cls(shapes=shapes, labels=dict(meta["labels"]), groups=dict(meta["groups"]))
        for key, value in {**tensors, **meta["scalars"]}.items():
            slot, _, name = key.partition("/")
            if slot == SCHEDULE:
                label, _, entry = name.partition("/")
                waiting.schedules.setdefault(label, {})[entry] = value
            else:
                waiting.slots.setdefault(name, {})[slot] = value
        return waiting
