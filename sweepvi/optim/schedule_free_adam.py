"""Schedule-free Adam: constant step sizes, and an average of the iterates in the place of a schedule.

Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky, "The Road Less Scheduled", 2024, algorithm 1, with the weights of
its reference code (``AdamWScheduleFree``). There are three sequences. The gradient g is taken at y, where the
parameter stands during the fit; z is what Adam moves; x, their average, is the result::

    v ← β₂ v + (1 − β₂) g²
    γ = lr · min(1, t / warmup_steps)
    z ← z − γ (g / (√(v / (1 − β₂ᵗ)) + eps) + weight_decay · y)
    x ← (1 − c) x + c z                 with c = w / Σ w  and  w = tʳ · γ^weight_lr_power
    y ← (1 − β₁) z + β₁ x

Kept are y (the parameter), z, v and Σ w; x follows from y and z. The weights are of γ as the paper has them, where the
reference code has the largest γ so far: the two differ only if a schedule lowers the step size. Steps are counted for
each parameter by itself, so that one that appears late is averaged from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import average_square, like, plus, power, shifted, times
from sweepvi.optim.clip import Clip
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class ScheduleFreeAdamRule(Rule):
    """Schedule-free Adam: a constant step size, and the average of iterates as the result. Wants no schedule."""

    slots: ClassVar = ("z", "exp_avg_sq", "weight_sum")

    lr: Annotated[float, Key("step size", gt=0)] = 0.1
    betas: Annotated[
        tuple[float, float], Key("how far gradients are taken towards the average, decay of squares", gt=0, lt=1)
    ] = (0.9, 0.999)
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("share of the parameter taken off a step, times lr", ge=0)] = 0.0
    warmup_steps: Annotated[int, Key("steps over which the step size grows linearly to lr", ge=0)] = 0
    r: Annotated[float, Key("power of the step in the weights of the average", ge=0)] = 0.0
    weight_lr_power: Annotated[float, Key("power of the step size in the weights of the average", ge=0)] = 2.0
    clip: Annotated[Clip, Key("bounds on the gradient, before the rule sees it")] = field(
        default=Clip(value=10.0), kw_only=True
    )

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """All three sequences start where the parameter is."""
        return super().init(param, hyper) | {"z": param.detach().clone()}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """Size of the step of z, its weight in the average, and the root of the correction for bias."""
        size = hyper["lr"] * _at_most_one(step / _at_least_one(hyper["warmup_steps"]))
        return {
            "size": size,
            "weight": step ** hyper["r"] * size ** hyper["weight_lr_power"],
            "correction": (1 - power(hyper["betas"][1], step)) ** 0.5,
        }

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = hyper["betas"]
        exp_avg_sq = average_square(slots["exp_avg_sq"], grad, beta2)
        direction = grad / shifted(exp_avg_sq.sqrt() / like(hyper["correction"], grad), hyper["eps"])
        direction = plus(direction, param, hyper["weight_decay"])
        weight_sum = shifted(slots["weight_sum"], hyper["weight"])
        # A schedule may hold the step size at zero for a while: no weight yet, and no share.
        share = like(hyper["weight"], weight_sum) / torch.where(weight_sum > 0, weight_sum, 1.0)
        # The change of y, with x = (y - (1 - beta1) z) / beta1 put in.
        delta = share * (slots["z"] - param) + times(direction, hyper["size"]) * (like(beta1, share) * (1 - share) - 1)
        z = slots["z"] - times(direction, hyper["size"])
        return delta, {"z": z, "exp_avg_sq": exp_avg_sq, "weight_sum": weight_sum}

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average x."""
        beta1 = like(hyper["betas"][0], param)
        return param + (slots["z"] - param) * (1 - 1 / beta1)


class ScheduleFreeAdam(RuleOptimizer, rule=ScheduleFreeAdamRule, lr=2.5e-3, clip=Clip()):
    """:class:`ScheduleFreeAdamRule` as a ``torch.optim.Optimizer``; the result is there inside :meth:`evaluated`."""


def _at_most_one(number: Any) -> Any:
    return number.clamp(max=1.0) if isinstance(number, Tensor) else min(number, 1.0)


def _at_least_one(number: Any) -> Any:
    return number.clamp(min=1.0) if isinstance(number, Tensor) else max(number, 1.0)
