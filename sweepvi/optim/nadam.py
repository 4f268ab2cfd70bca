"""NAdam: Adam with Nesterov momentum.

Dozat, "Incorporating Nesterov Momentum into Adam", 2016, algorithm 8, with the momentum schedule of Sutskever.
Semantics of ``torch.optim.NAdam``. With gradient g, step t and ψ = ``momentum_decay``::

    g ← g + weight_decay · p                    (or p ← p − lr · weight_decay · p when decoupled)
    μₜ = β₁ (1 − ½ · 0.96^(t ψ)),  Πₜ = μ₁ ⋯ μₜ
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    p ← p − lr · ((1 − μₜ) g / (1 − Πₜ) + μₜ₊₁ m / (1 − Πₜ₊₁)) / (√(v / (1 − β₂ᵗ)) + eps)

The product Π is a slot, one entry an element: it has no closed form in t.
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
class NAdamRule(Rule):
    """NAdam, as in torch: Adam that looks ahead along its momentum."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq", "mu_product")

    lr: Annotated[float, Key("step size", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    momentum_decay: Annotated[float, Key("how fast the momentum rises from half of its value", ge=0)] = 4e-3
    decoupled_weight_decay: Annotated[bool, Key("take lr * weight_decay of the parameter off instead")] = False

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """The product of the momenta starts at 1."""
        return super().init(param, hyper) | {"mu_product": torch.ones_like(param, requires_grad=False)}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The momentum now and at the next step, and the correction for the second average's bias."""
        beta1, beta2 = hyper["betas"]
        decay = hyper["momentum_decay"]
        return {
            "mu": beta1 * (1.0 - 0.5 * 0.96 ** (step * decay)),
            "mu_next": beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * decay)),
            "correction": 1 - power(beta2, step),
        }

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = hyper["betas"]
        lr, mu, mu_next = hyper["lr"], hyper["mu"], hyper["mu_next"]
        if not self.decoupled_weight_decay:
            grad = penalized(grad, param, hyper["weight_decay"])
        exp_avg = mixed(slots["exp_avg"], grad, 1 - beta1)
        exp_avg_sq = average_square(slots["exp_avg_sq"], grad, beta2)
        product = times(slots["mu_product"], mu)
        ahead = times(exp_avg, -lr * mu_next) / (1.0 - times(product, mu_next))
        direction = times(grad, -lr * (1 - mu)) / (1.0 - product) + ahead
        delta = direction / shifted((exp_avg_sq / like(hyper["correction"], grad)).sqrt(), hyper["eps"])
        if self.decoupled_weight_decay and self.reads_param(hyper):
            delta = plus(delta, param, -lr * hyper["weight_decay"])
        return delta, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "mu_product": product}


class NAdam(RuleOptimizer, rule=NAdamRule, lr=2e-3):
    """:class:`NAdamRule` as a ``torch.optim.Optimizer``."""
