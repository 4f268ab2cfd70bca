"""Adagrad.

Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", 2011, the
diagonal case of algorithm 1. Semantics of ``torch.optim.Adagrad``. With gradient g and step t::

    g ← g + weight_decay · p
    s ← s + g²                                  (s₀ = initial_accumulator_value)
    p ← p − lr / (1 + (t − 1) lr_decay) · g / (√s + eps)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, penalized, plus_product, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdagradRule(Rule):
    """Adagrad, as in torch: the gradient over the root of the sum of all its squares so far."""

    slots: ClassVar = ("sum",)

    lr: Annotated[float, Key("step size", gt=0)] = 0.1
    lr_decay: Annotated[float, Key("divides the step size by 1 + lr_decay * updates so far", ge=0)] = 0.0
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    initial_accumulator_value: Annotated[float, Key("the sum of squares at the start", ge=0)] = 0.0
    eps: Annotated[float, Key("added to the root of the sum", ge=0)] = 1e-10

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """The sum starts at ``initial_accumulator_value``."""
        return {"sum": shifted(torch.zeros_like(param, requires_grad=False), hyper["initial_accumulator_value"])}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size after ``lr_decay``."""
        return {"size": hyper["lr"] / (1 + (step - 1) * hyper["lr_decay"])}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        grad = penalized(grad, param, hyper["weight_decay"])
        total = plus_product(slots["sum"], grad, grad, 1.0)
        return times(grad, -hyper["size"]) / shifted(total.sqrt(), hyper["eps"]), {"sum": total}


class Adagrad(RuleOptimizer, rule=AdagradRule, lr=1e-2):
    """:class:`AdagradRule` as a ``torch.optim.Optimizer``."""
