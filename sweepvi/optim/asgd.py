"""Averaged stochastic gradient descent.

Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; step sizes after Bottou, "Stochastic
Gradient Descent Tricks", 2012, section 4.2. Semantics of ``torch.optim.ASGD``. With gradient g and step t::

    g ← g + weight_decay · p
    η = lr / (1 + lambd · lr · (t − 1))^alpha
    p ← p − η (g + lambd · p)
    a ← a + (p − a) / max(1, t − 1 − t0)

The result of a fit is the average a, which is p itself until step ``t0``: :meth:`ASGDRule.evaluated` says so. The
parameter stays at p, as in torch, whose class leaves it to the user to look into its state for a.

torch keeps η and the share of p as state, computed at the end of a step for the next: a scheduled step size arrives
one step late there. Here both are functions of the step, and it arrives on time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import larger, mixed, penalized, plus, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class ASGDRule(Rule):
    """Averaged SGD, as in torch: descent with falling steps, whose average from `t0` on is the result."""

    slots: ClassVar = ("ax",)

    lr: Annotated[float, Key("step size at the start", gt=0)] = 1e-4
    lambd: Annotated[float, Key("L2 penalty, which also sets how fast the step size falls", ge=0)] = 1e-4
    alpha: Annotated[float, Key("power by which the step size falls", ge=0)] = 0.75
    t0: Annotated[float, Key("step at which averaging starts", ge=0)] = 1000.0
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size, and the share of the new point in the average."""
        lr = hyper["lr"]
        return {
            "eta": lr / (1 + hyper["lambd"] * lr * (step - 1)) ** hyper["alpha"],
            "mu": 1 / larger(step - 1 - hyper["t0"], 1.0),
        }

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        eta = hyper["eta"]
        grad = penalized(grad, param, hyper["weight_decay"])
        delta = plus(times(grad, -eta), param, -eta * hyper["lambd"])
        return delta, {"ax": mixed(slots["ax"], param + delta, hyper["mu"])}

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average."""
        del param, hyper
        return slots["ax"]


class ASGD(RuleOptimizer, rule=ASGDRule, lr=1e-2, t0=1e6):
    """:class:`ASGDRule` as a ``torch.optim.Optimizer``."""
