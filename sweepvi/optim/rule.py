"""What an update rule is: pure tensor code, from which every optimizer is made.

A rule never changes its inputs. It works on whatever broadcasts: one parameter, the concatenation of many, or an
arena ``[K, D]`` of K independent fits whose hyperparameters are tensors ``[K, 1]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.keys import Key, Keyed, keys_of
from sweepvi.optim.clip import Clip

Slots: TypeAlias = dict[str, Tensor]
"""The state of a rule beside the step: slot name → tensor, shaped like the parameter unless the rule says otherwise."""

Hyper: TypeAlias = Mapping[str, Any]
"""Hyperparameters by key: Python numbers, or float64 tensors that broadcast against the parameter.

``sweepvi.optim.arithmetic`` is where they meet tensors of the parameter's type.
"""

Step: TypeAlias = int | Tensor
"""The number of this update, from 1; a tensor is float64."""

Scope: TypeAlias = Literal["element", "parameter", "group"]
"""What an element of an update depends on, beside its own past: on nothing else, on its parameter, on all of them."""


@dataclass(frozen=True)
class Rule(Keyed, ABC):
    """An update rule; its fields are the hyperparameters and their defaults.

    Subclasses name their ``slots`` and write :meth:`update`. What a rule may look at is its ``scope``:

    * ``element``: element i of the update depends on element i of gradient, parameter and slots only. Parameters are
      concatenated, lanes are leading dimensions.
    * ``parameter``: the update depends on the whole parameter, in its own shape. Parameters of equal shape, and
      lanes, run together under ``torch.vmap``.
    * ``group``: it depends on all parameters together, by sums over the last dimension of their concatenation
      ``[…, D]``. Slots named in ``shared`` belong to all of them.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    scope: ClassVar[Scope] = "element"
    shared: ClassVar[tuple[str, ...]] = ()
    """Slots shaped ``[…, 1]`` that belong to all parameters together; scope ``group`` only."""
    rate: ClassVar[str] = "lr"
    """The hyperparameter that schedules multiply."""

    clip: Annotated[Clip, Key("bounds on the gradient, before the rule sees it")] = field(default=Clip(), kw_only=True)

    def for_parameter(self, name: str, param: Tensor) -> Rule:
        """The rule that updates a parameter: itself, unless it depends on which parameter it is."""
        del name, param
        return self

    def misfits(self, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
        """What of the settings does not fit a fit's parameters, given by name and shape: key → what would be valid."""
        del shapes
        return {}

    def trailing(self) -> int | None:
        """In scope ``parameter``: how many of the last dimensions an update sees together; None is all.

        Those before them are rows: an update takes any number of them, whether they are of one parameter or of many.
        """
        return None

    def slot_names(self) -> tuple[str, ...]:
        """The slots that these hyperparameters need."""
        return self.slots

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Slots before the first update: zeros shaped like ``param``, unless the rule says otherwise."""
        del hyper
        return {name: torch.zeros_like(param, requires_grad=False) for name in self.slot_names()}

    def reads_param(self, hyper: Hyper) -> bool:
        """Whether :meth:`update` looks at ``param`` at all; if not, what it is given there means nothing."""
        del hyper
        return True

    def inputs(self, param: Tensor) -> Slots:
        """What else an update of this parameter reads, shaped like it; it arrives in ``hyper`` under these names."""
        del param
        return {}

    def decay(self, hyper: Hyper, clock: Step) -> Any:
        """The rule's own factor on the step size at the optimizer's step ``clock`` (from 1); 1 unless it has one.

        The clock runs for all parameters alike; ``step`` in :meth:`update` counts a parameter's own updates.
        """
        del hyper, clock
        return 1.0

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """What depends on hyperparameters and step alone, such as ``1 − βᵗ``; :meth:`update` finds it in ``hyper``.

        Args:
            hyper: hyperparameters by key, the step size in it effective.
            step: number of this update, from 1.

        """
        del hyper, step
        return {}

    @abstractmethod
    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """One update.

        Args:
            grad: gradient of the loss, any shape.
            param: parameter, same shape.
            slots: state after the last update, same shapes as :meth:`init` gives.
            hyper: hyperparameters by key, :meth:`scalars` and :meth:`inputs`; they must broadcast against ``grad``.
                The step size in it is effective: schedule and :meth:`decay` are in it.

        Returns:
            What to add to the parameter, and the new slots.

        """

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The point to use as the result when the parameter stands at ``param``: itself, unless the rule averages."""
        del slots, hyper
        return param

    def size(self, slots: Slots) -> Any:
        """A step size that the rule finds by itself, as a factor on the configured one; 1 unless it does."""
        del slots
        return 1.0

    def hyper(self) -> dict[str, Any]:
        """The hyperparameters by key; under ``clip``, the bounds there are, by kind."""
        values = {spec.name: getattr(self, spec.name) for spec in keys_of(type(self))}
        return values | {"clip": self.clip.bounds()}
