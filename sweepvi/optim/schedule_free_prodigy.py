"""Schedule-free Prodigy: an Adam that finds its step size, and averages in the place of a schedule.

Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2024, algorithm 4, for the step size
d; Defazio et al., "The Road Less Scheduled", 2024, algorithm 1, for the rest. The gradient g is taken at y, where the
parameter stands during the fit; z is what Adam moves; x, their average, is the result; all start at x₀::

    n ← √β₂ n + lr d² / d₀ ⟨g, x₀ − y⟩,    s ← √β₂ s + lr d² / d₀ g
    v ← β₂ v + (1 − β₂) d² g²
    z ← z − lr d · d g / (√(v / (1 − β₂ᵗ)) + d' eps)        with d' = max(d, d_coef n / ‖s‖₁), the next d
    x ← (1 − c) x + c z                                     with c = w / Σ w  and  w = (lr d)²
    y ← (1 − β₁) z + β₁ x

For a convex loss, n / ‖s‖₁ is a lower bound on the largest distance that a parameter has to go: as
⟨g, y − x*⟩ ≥ 0, n ≤ ⟨s, x₀ − x*⟩ ≤ ‖s‖₁ ‖x₀ − x*‖∞. That holds at y, where the gradient is taken; the authors' code for
AlgoPerf, which joins the two methods too, has z there, and powers of t for weights.

Averages run, and are corrected for bias, from when a parameter first appears; d and n are common to all parameters of
a group. ``lr`` scales how far a step goes, and with it how fast the search for d gets on: far below 1, it gets
nowhere. The slots x
and z hold distances from x₀: the first steps are far smaller than what float32 resolves in a parameter of size 100,
which would stay where it is, and d with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import average, like, plus, times
from sweepvi.optim.rule import Hyper, Rule, Scope, Slots
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class ScheduleFreeProdigyRule(Rule):
    """Schedule-free Prodigy: finds its step size by itself, averages iterates, wants no tuning and no schedule."""

    slots: ClassVar = ("start", "x", "z", "exp_avg_sq", "filled", "s", "weight_sum", "d", "numerator")
    shared: ClassVar = ("d", "numerator")
    scope: ClassVar[Scope] = "group"

    lr: Annotated[float, Key("factor on the step size found", gt=0)] = 1.0
    betas: Annotated[
        tuple[float, float], Key("how far gradients are taken towards the average, decay of squares", gt=0, lt=1)
    ] = (0.9, 0.999)
    eps: Annotated[float, Key("added to the root of the squared-gradient average", gt=0)] = 1e-8
    weight_decay: Annotated[float, Key("share of the parameter taken off a step, times the step size", ge=0)] = 0.0
    d0: Annotated[float, Key("step size to start with, far too small on purpose", gt=0)] = 1e-6
    d_coef: Annotated[float, Key("share of the estimated distance to take as step size", gt=0)] = 0.3

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """All sequences, and the distances, start where the parameter is."""
        nothing = torch.zeros_like(param[..., :1], requires_grad=False)
        common = {"d": nothing + like(hyper["d0"], nothing), "numerator": nothing}
        return super().init(param, hyper) | {"start": param.detach().clone()} | common

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        beta1, beta2 = (like(beta, grad) for beta in hyper["betas"])
        d, root = slots["d"], beta2**0.5
        size = times(d, hyper["lr"])
        weight = size * d / like(hyper["d0"], d)
        y = (1 - beta1) * slots["z"] + beta1 * slots["x"]
        numerator = root * slots["numerator"] - weight * (grad * y).sum(-1, keepdim=True)
        s = root * slots["s"] + weight * grad
        grown = torch.maximum(d, times(_ratio(numerator, s.abs().sum(-1, keepdim=True)), hyper["d_coef"]))

        exp_avg_sq = average(slots["exp_avg_sq"], (d * grad) ** 2, beta2)
        filled = average(slots["filled"], torch.ones_like(grad), beta2)
        direction = d * grad / ((exp_avg_sq / filled).sqrt() + times(grown, hyper["eps"]))
        direction = plus(direction, param, hyper["weight_decay"])
        z = slots["z"] - size * direction
        weight_sum = slots["weight_sum"] + size**2
        x = slots["x"] + _ratio(size**2, weight_sum) * (z - slots["x"])
        return slots["start"] + ((1 - beta1) * z + beta1 * x) - param, {
            "start": slots["start"],
            "x": x,
            "z": z,
            "exp_avg_sq": exp_avg_sq,
            "filled": filled,
            "s": s,
            "weight_sum": weight_sum,
            "d": grown,
            "numerator": numerator,
        }

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average x."""
        del param, hyper
        return slots["start"] + slots["x"]

    def size(self, slots: Slots) -> Any:
        """The step size found."""
        return slots["d"]


class ScheduleFreeProdigy(RuleOptimizer, rule=ScheduleFreeProdigyRule):
    """:class:`ScheduleFreeProdigyRule` as a ``torch.optim.Optimizer``; the result is there inside :meth:`evaluated`."""


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and zero where the whole is: before the first gradient, or at a step size of zero."""
    return torch.where(whole > 0, part / torch.where(whole > 0, whole, 1.0), 0.0)
