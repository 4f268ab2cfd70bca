"""ClippedAdam: Adam with an elementwise gradient clamp and a per-step decay of the rate.

Pyro's optimizer of that name (``pyro.optim.clipped_adam``, 1.9.2), after Kingma & Ba, "Adam: A Method for Stochastic
Optimization", 2015, algorithm 1. With gradient g, step t, and c = ``clip_norm``::

    g ← clamp(g, −c, c) + weight_decay · p
    m ← β₁ m + (1 − β₁) g
    v ← β₂ v + (1 − β₂) g²             (g − m in place of g when ``centered_variance``)
    p ← p − lr · lrdᵗ · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + eps)

``eps`` is not bias-corrected, as in Pyro and unlike torch's Adam. Unlike Pyro's, ``lrd`` is a function of the step
and leaves the group's ``lr`` alone, so schedules multiply with it; and the caller's ``.grad`` is not changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, average, average_square, clamped, penalized, power, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class ClippedAdamRule(Rule):
    """Pyro's ClippedAdam: Adam, gradients clamped elementwise, rate decaying by `lrd` a step."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq")

    lr: Annotated[float, Key("step size at the start", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the clamped gradient", ge=0)] = 0.0
    clip_norm: Annotated[
        float, Key("bound on each element of the gradient (a clamp, not a norm)", gt=0, infinite=True)
    ] = 10.0
    lrd: Annotated[float, Key("factor on the step size, once a step", gt=0)] = 1.0
    centered_variance: Annotated[bool, Key("average (gradient - its average) squared instead")] = False

    def decay(self, hyper: Hyper, clock: Step) -> Any:
        """``lrd`` to the power of the step."""
        return power(hyper["lrd"], clock)

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size with both corrections for bias."""
        beta1, beta2 = hyper["betas"]
        return {"size": hyper["lr"] * (1 - power(beta2, step)) ** 0.5 / (1 - power(beta1, step))}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = hyper["betas"]
        grad = penalized(clamped(grad, hyper["clip_norm"]), param, hyper["weight_decay"])
        exp_avg = average(slots["exp_avg"], grad, beta1)
        deviation = grad - exp_avg if self.centered_variance else grad
        exp_avg_sq = average_square(slots["exp_avg_sq"], deviation, beta2)
        return times(exp_avg, -hyper["size"]) / shifted(exp_avg_sq.sqrt(), hyper["eps"]), {
            "exp_avg": exp_avg,
            "exp_avg_sq": exp_avg_sq,
        }


class ClippedAdam(RuleOptimizer, rule=ClippedAdamRule, lr=1e-3):
    """:class:`ClippedAdamRule` as a ``torch.optim.Optimizer``."""
