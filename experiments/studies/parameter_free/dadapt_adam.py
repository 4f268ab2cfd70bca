"""Adam with D-Adaptation.

Defazio & Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", 2023, algorithm 5, with the square roots of β₂ of
the paper. ``A = √v + eps``, v before this gradient in the inner product and with it elsewhere::

    n ← √β₂ n + (1 − √β₂) lr d ⟨g, A⁻¹ s⟩
    m ← β₁ m + (1 − β₁) lr d g,    v ← β₂ v + (1 − β₂) g²,    s ← √β₂ s + (1 − √β₂) lr d g
    x ← x − A⁻¹ m
    d ← max(d, n / ((1 − √β₂) ‖s‖₁))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from averaging import averaged, share
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import average_square, like, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step


@dataclass(frozen=True)
class DAdaptAdamRule(Rule):
    """Adam with D-Adaptation: the step size is a lower bound on the distance to the optimum."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq", "s", "average", "d", "numerator")
    shared: ClassVar = ("d", "numerator")
    scope: ClassVar = "group"

    lr: Annotated[float, Key("factor on the step size found", gt=0)] = 1.0
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", gt=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", gt=0)] = 1e-8
    d0: Annotated[float, Key("first estimate of the distance", gt=0)] = 1e-6

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Zeros, but for the first estimate of d."""
        nothing = torch.zeros_like(param[..., :1])
        zeros = {name: torch.zeros_like(param) for name in ("exp_avg", "exp_avg_sq", "s")}
        return zeros | {"average": param.clone(), "d": nothing + like(hyper["d0"], nothing), "numerator": nothing}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The weight of this iterate in the average, and the root of β₂."""
        return {"share": share(step), "root": hyper["betas"][1] ** 0.5}

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = (like(beta, grad) for beta in hyper["betas"])
        root, size = like(hyper["root"], grad), times(slots["d"], hyper["lr"])
        before = shifted(slots["exp_avg_sq"].sqrt(), hyper["eps"])
        inner = size * (grad * slots["s"] / before).sum(-1, keepdim=True)
        numerator = root * slots["numerator"] + (1 - root) * inner
        exp_avg = beta1 * slots["exp_avg"] + (1 - beta1) * size * grad
        exp_avg_sq = average_square(slots["exp_avg_sq"], grad, beta2)
        s = root * slots["s"] + (1 - root) * size * grad
        denominator = (1 - root) * s.abs().sum(-1, keepdim=True)
        estimate = torch.where(denominator > 0, numerator / denominator, 0.0)
        delta = -exp_avg / shifted(exp_avg_sq.sqrt(), hyper["eps"])
        return delta, {
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
            "s": s,
            "average": averaged(slots["average"], param + delta, hyper["share"]),
            "d": torch.maximum(slots["d"], estimate),
            "numerator": numerator,
        }

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average of the iterates."""
        del param, hyper
        return slots["average"]
