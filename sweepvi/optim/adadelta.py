"""Adadelta.

Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, algorithm 1. Semantics of ``torch.optim.Adadelta``. With
gradient g::

    g ← g + weight_decay · p
    v ← rho v + (1 − rho) g²
    d ← √(u + eps) / √(v + eps) · g
    u ← rho u + (1 − rho) d²
    p ← p − lr · d
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, average_square, penalized, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdadeltaRule(Rule):
    """Adadelta, as in torch: the gradient, scaled to the size of the updates so far."""

    slots: ClassVar = ("square_avg", "acc_delta")

    lr: Annotated[float, Key("factor on the step size that the rule finds", gt=0)] = 1.0
    rho: Annotated[float, Key("decay of the averages of squared gradient and squared update", ge=0, lt=1)] = 0.9
    eps: Annotated[float, Key("added to both averages; its root is about the first step's size", gt=0)] = 1e-6
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        grad = penalized(grad, param, hyper["weight_decay"])
        square_avg = average_square(slots["square_avg"], grad, hyper["rho"])
        size = shifted(slots["acc_delta"], hyper["eps"]).sqrt()
        delta = size / shifted(square_avg, hyper["eps"]).sqrt() * grad
        acc_delta = average_square(slots["acc_delta"], delta, hyper["rho"])
        return times(delta, -hyper["lr"]), {"square_avg": square_avg, "acc_delta": acc_delta}


class Adadelta(RuleOptimizer, rule=AdadeltaRule):
    """:class:`AdadeltaRule` as a ``torch.optim.Optimizer``."""
