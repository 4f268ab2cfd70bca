"""Adam.

Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1; AMSGrad after Reddi, Kale & Kumar, "On
the Convergence of Adam and Beyond", 2018. Semantics of ``torch.optim.Adam``: the L2 penalty is added to the gradient,
and ``eps`` is added to the bias-corrected root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdamRule(Rule):
    """Adam, as in torch: step sizes from averages of the gradient and its square."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq")

    lr: Annotated[float, Key("step size", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    amsgrad: Annotated[bool, Key("divide by the largest squared-gradient average so far")] = False

    def slot_names(self) -> tuple[str, ...]:
        """The two averages, and with ``amsgrad`` the largest second one so far."""
        return (*self.slots, "max_exp_avg_sq") if self.amsgrad else self.slots

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper, step: Step) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        return self.adam_update(grad + hyper["weight_decay"] * param, slots, hyper, step)

    def adam_update(self, grad: Tensor, slots: Slots, hyper: Hyper, step: Step) -> tuple[Tensor, Slots]:
        """The update of algorithm 1, without any weight decay."""
        beta1, beta2 = hyper["betas"]
        new = {
            "exp_avg": beta1 * slots["exp_avg"] + (1 - beta1) * grad,
            "exp_avg_sq": beta2 * slots["exp_avg_sq"] + (1 - beta2) * grad * grad,
        }
        second = new["exp_avg_sq"]
        if self.amsgrad:
            second = new["max_exp_avg_sq"] = torch.maximum(slots["max_exp_avg_sq"], second)
        denominator = second.sqrt() / (1 - beta2**step) ** 0.5 + hyper["eps"]
        return -hyper["lr"] / (1 - beta1**step) * new["exp_avg"] / denominator, new


class Adam(RuleOptimizer, rule=AdamRule):
    """:class:`AdamRule` as a ``torch.optim.Optimizer``."""
