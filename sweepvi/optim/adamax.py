"""Adamax: Adam with the infinity norm in place of the root of the squared-gradient average.

Kingma & Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 2. Semantics of ``torch.optim.Adamax``.
With gradient g and step t::

    g ← g + weight_decay · p
    m ← β₁ m + (1 − β₁) g
    u ← max(β₂ u, |g| + eps)
    p ← p − lr / (1 − β₁ᵗ) · m / u
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, mixed, penalized, power, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdamaxRule(Rule):
    """Adamax, as in torch: Adam, divided by a decaying maximum of the gradient's size."""

    slots: ClassVar = ("exp_avg", "exp_inf")

    lr: Annotated[float, Key("step size", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of the gradient's average and of its maximum", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the gradient's size", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size corrected for the average's bias."""
        return {"size": hyper["lr"] / (1 - power(hyper["betas"][0], step))}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = hyper["betas"]
        grad = penalized(grad, param, hyper["weight_decay"])
        exp_avg = mixed(slots["exp_avg"], grad, 1 - beta1)
        exp_inf = torch.maximum(times(slots["exp_inf"], beta2), shifted(grad.abs(), hyper["eps"]))
        return times(exp_avg, -hyper["size"]) / exp_inf, {"exp_avg": exp_avg, "exp_inf": exp_inf}


class Adamax(RuleOptimizer, rule=AdamaxRule, lr=2e-3):
    """:class:`AdamaxRule` as a ``torch.optim.Optimizer``."""
