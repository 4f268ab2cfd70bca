"""RAdam: Adam whose first steps are without the squared-gradient average, until it is worth trusting.

Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, algorithm 2. Semantics of
``torch.optim.RAdam``, whose threshold is 5 in place of 4. With gradient g, step t and ρ∞ = 2 / (1 − β₂) − 1::

    g ← g + weight_decay · p                    (or p ← p − lr · weight_decay · p when decoupled)
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²
    ρ = ρ∞ − 2 t β₂ᵗ / (1 − β₂ᵗ)
    r = √((ρ − 4)(ρ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρ))
    p ← p − lr · m / (1 − β₁ᵗ) · r √(1 − β₂ᵗ) / (√v + eps)      if ρ > 5
    p ← p − lr · m / (1 − β₁ᵗ)                                  otherwise

The second kind of step, the first five with the default ``betas``, is as large as the gradient is. Gradients of an ELBO
may be in the thousands: hence the bound on each element that is a default here, the one of ClippedAdam.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, average_square, choose, like, mixed, penalized, plus, power, shifted, times
from sweepvi.optim.clip import Clip
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class RAdamRule(Rule):
    """RAdam, as in torch: Adam that warms itself up."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq")

    lr: Annotated[float, Key("step size", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    decoupled_weight_decay: Annotated[bool, Key("take lr * weight_decay of the parameter off instead")] = False
    clip: Annotated[Clip, Key("bounds on the gradient, before the rule sees it")] = field(
        default=Clip(value=10.0), kw_only=True
    )

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """Both corrections for bias; whether to rectify, and by what factor."""
        beta1, beta2 = hyper["betas"]
        correction = 1 - power(beta2, step)
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * power(beta2, step) / correction
        rectified = length > 5.0
        # Where it does not hold, two sixes give the factor 1, without a root of what may be negative.
        length, limit = choose(rectified, length, 6.0), choose(rectified, limit, 6.0)
        factor = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)) ** 0.5
        return {"bias": 1 - power(beta1, step), "root": correction**0.5, "rectified": rectified, "factor": factor}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = hyper["betas"]
        if not self.decoupled_weight_decay:
            grad = penalized(grad, param, hyper["weight_decay"])
        exp_avg = mixed(slots["exp_avg"], grad, 1 - beta1)
        exp_avg_sq = average_square(slots["exp_avg_sq"], grad, beta2)
        delta = -self._direction(exp_avg, exp_avg_sq, hyper)
        if self.decoupled_weight_decay and self.reads_param(hyper):
            delta = plus(delta, param, -hyper["lr"] * hyper["weight_decay"])
        return delta, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}

    def _direction(self, exp_avg: Tensor, exp_avg_sq: Tensor, hyper: Hyper) -> Tensor:
        plain = times(exp_avg / like(hyper["bias"], exp_avg), hyper["lr"])
        rectified = hyper["rectified"]
        if rectified is False:
            return plain
        adaptive = like(hyper["root"], exp_avg) / shifted(exp_avg_sq.sqrt(), hyper["eps"])
        whole = times(plain * adaptive, hyper["factor"])
        return torch.where(rectified, whole, plain) if isinstance(rectified, Tensor) else whole


class RAdam(RuleOptimizer, rule=RAdamRule, lr=1e-3, clip=Clip()):
    """:class:`RAdamRule` as a ``torch.optim.Optimizer``."""
