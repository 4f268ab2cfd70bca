"""What an update rule is: pure tensor code, from which every optimizer is made.

A rule never changes its inputs. It works on whatever broadcasts: one parameter, the concatenation of many, or an
arena ``[K, D]`` of K independent fits whose hyperparameters are tensors ``[K, 1]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from sweepvi.keys import Keyed, keys_of

Slots: TypeAlias = dict[str, Tensor]
"""The state of a rule beside the step: slot name → tensor shaped like the parameter."""

Hyper: TypeAlias = Mapping[str, Any]
"""Hyperparameters by key: Python numbers, or tensors that broadcast against the parameter."""

Step: TypeAlias = int | Tensor
"""The number of this update, from 1."""


@dataclass(frozen=True)
class Rule(Keyed, ABC):
    """An update rule; its fields are the hyperparameters and their defaults.

    Subclasses name their ``slots`` and write :meth:`update`. A rule must be elementwise: element i of the update
    depends on element i of gradient, parameter and slots only, so that parameters can be concatenated.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def init(self, param: Tensor) -> Slots:
        """Slots before the first update: zeros shaped like ``param``."""
        return {name: torch.zeros_like(param, requires_grad=False) for name in self.slot_names()}

    def slot_names(self) -> tuple[str, ...]:
        """The slots that these hyperparameters need."""
        return self.slots

    def decay(self, hyper: Hyper, clock: Step) -> Any:
        """The rule's own factor on ``lr`` at the optimizer's step ``clock`` (from 1); 1 unless the rule has one.

        The clock runs for all parameters alike; ``step`` in :meth:`update` counts a parameter's own updates.
        """
        del hyper, clock
        return 1.0

    @abstractmethod
    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper, step: Step) -> tuple[Tensor, Slots]:
        """One update.

        Args:
            grad: gradient of the loss, any shape.
            param: parameter, same shape.
            slots: state after the last update, same shapes.
            hyper: hyperparameters by key; they must broadcast against ``grad``.
            step: number of this update, from 1.

        Returns:
            What to add to the parameter, and the new slots.

        """

    def hyper(self) -> dict[str, Any]:
        """The hyperparameters by key."""
        return {spec.name: getattr(self, spec.name) for spec in keys_of(type(self))}
