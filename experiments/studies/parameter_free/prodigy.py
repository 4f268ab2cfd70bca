"""Prodigy: Adam that estimates its step size by the distance to the optimum.

Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2024, algorithm 4, with β₃ = √β₂
and defaults of the authors' package::

    n ← β₃ n + lr d² / d₀ ⟨g, x₀ − x⟩,    s ← β₃ s + lr d² / d₀ g
    m ← β₁ m + (1 − β₁) d g,    v ← β₂ v + (1 − β₂) d² g²
    d ← max(d, d_coef n / ‖s‖₁)
    x ← x − lr d m / (√v + d eps)           d in front is the old one, as in the package
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from averaging import averaged, share
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import like, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step


@dataclass(frozen=True)
class ProdigyRule(Rule):
    """Prodigy: Adam whose step size is an estimate of the distance to the optimum."""

    slots: ClassVar = ("start", "exp_avg", "exp_avg_sq", "s", "average", "d", "numerator")
    shared: ClassVar = ("d", "numerator")
    scope: ClassVar = "group"

    lr: Annotated[float, Key("factor on the step size found", gt=0)] = 1.0
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", gt=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", gt=0)] = 1e-8
    d0: Annotated[float, Key("first estimate of the distance", gt=0)] = 1e-6
    d_coef: Annotated[float, Key("factor on the estimate of the distance", gt=0)] = 1.0
    bias_correction: Annotated[bool, Key("correct the step size for bias as Adam does")] = False
    safeguard: Annotated[bool, Key("leave lr out of the denominator of the estimate")] = False

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Distances are from where the parameters are now."""
        nothing = torch.zeros_like(param[..., :1])
        zeros = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq", "s")}
        points = {name: param.clone() for name in ("start", "average")}
        return zeros | points | {"d": nothing + like(hyper["d0"], nothing), "numerator": nothing}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The weight of this iterate in the average, β₃, and the step size but for d."""
        beta1, beta2 = hyper["betas"]
        size = hyper["lr"]
        if self.bias_correction:
            size = size * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        return {"share": share(step), "beta3": beta2**0.5, "size": size}

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = (like(beta, grad) for beta in hyper["betas"])
        beta3, d = like(hyper["beta3"], grad), slots["d"]
        size = times(d, hyper["size"])
        weight = d / like(hyper["d0"], d)
        inner = (grad * (slots["start"] - param)).sum(-1, keepdim=True)
        numerator = beta3 * slots["numerator"] + weight * size * inner
        s = beta3 * slots["s"] + weight * (d if self.safeguard else size) * grad
        denominator = s.abs().sum(-1, keepdim=True)
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * d * grad
        exp_avg_sq = beta2 * slots["exp_avg_sq"] + (1 - beta2) * (d * grad) ** 2
        estimate = torch.where(denominator > 0, numerator / denominator, 0.0)
        grown = torch.maximum(d, times(estimate, hyper["d_coef"]))
        delta = -size * exp_avg / (exp_avg_sq.sqrt() + times(grown, hyper["eps"]))
        return delta, {
            "start": slots["start"],
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
            "s": s,
            "average": averaged(slots["average"], param + delta, hyper["share"]),
            "d": grown,
            "numerator": numerator,
        }

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average of the iterates."""
        del param, hyper
        return slots["average"]
