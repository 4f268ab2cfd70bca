"""Adam.

Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1; AMSGrad after Reddi, Kale & Kumar, "On
the Convergence of Adam and Beyond", 2018. Semantics of ``torch.optim.Adam``: the L2 penalty is added to the gradient,
and ``eps`` is added to the bias-corrected root.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, average_square, like, mixed, penalized, plus, power, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdamBase(Rule):
    """What Adam and AdamW have in common."""

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

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size corrected for the first average's bias, and the root of the second's correction."""
        beta1, beta2 = hyper["betas"]
        return {"size": hyper["lr"] / (1 - power(beta1, step)), "correction": (1 - power(beta2, step)) ** 0.5}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def penalized_update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """The update with the weight decay in the gradient."""
        return self.adam_update(penalized(grad, param, hyper["weight_decay"]), slots, hyper)

    def decoupled_update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """The update with the weight decay apart from the gradient."""
        delta, slots = self.adam_update(grad, slots, hyper)
        if self.reads_param(hyper):
            delta = plus(delta, param, -hyper["lr"] * hyper["weight_decay"])
        return delta, slots

    def adam_update(self, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """The update of algorithm 1, without any weight decay."""
        beta1, beta2 = hyper["betas"]
        new = {
            "exp_avg": mixed(slots["exp_avg"], grad, 1 - beta1),
            "exp_avg_sq": average_square(slots["exp_avg_sq"], grad, beta2),
        }
        second = new["exp_avg_sq"]
        if self.amsgrad:
            second = new["max_exp_avg_sq"] = torch.maximum(slots["max_exp_avg_sq"], second)
        denominator = shifted(second.sqrt() / like(hyper["correction"], second), hyper["eps"])
        return times(new["exp_avg"], -hyper["size"]) / denominator, new


@dataclass(frozen=True)
class AdamRule(AdamBase):
    """Adam, as in torch: step sizes from averages of the gradient and its square."""

    decoupled_weight_decay: Annotated[bool, Key("take lr * weight_decay of the parameter off instead: AdamW")] = False

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        if self.decoupled_weight_decay:
            return self.decoupled_update(grad, param, slots, hyper)
        return self.penalized_update(grad, param, slots, hyper)


class Adam(RuleOptimizer, rule=AdamRule, lr=1e-3):
    """:class:`AdamRule` as a ``torch.optim.Optimizer``."""
