"""Rprop: resilient backpropagation.

Riedmiller & Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm", 1993, in the
variant iRprop⁻ of Igel & Hüsken, "Improving the Rprop Learning Algorithm", 2000. Semantics of ``torch.optim.Rprop``.
With gradient g, the one before it h, and (η₋, η₊) = ``etas``::

    s ← η₊ s where g h > 0,  η₋ s where g h < 0,  within step_sizes      (s₀ = lr)
    g ← 0 where g h < 0
    p ← p − s · sign(g)
    h ← g

``lr`` is the size of the first step and nothing else: no later value of it is looked at, so schedules have no effect
beyond the first step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import like, shifted
from sweepvi.optim.rule import Hyper, Rule, Slots
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class RpropRule(Rule):
    """Rprop, as in torch: steps that grow while the gradient keeps its sign, and shrink when it turns."""

    slots: ClassVar = ("prev", "step_size")

    lr: Annotated[float, Key("size of the first step; without effect after it", gt=0)] = 1e-2
    etas: Annotated[tuple[float, float], Key("factor on a step where the sign turned, and where it did not", gt=0)] = (
        0.5,
        1.2,
    )
    step_sizes: Annotated[tuple[float, float], Key("smallest and largest step", ge=0)] = (1e-6, 50.0)

    def conflicts(self) -> dict[str, str]:
        """The first factor shrinks steps, the second lets them grow; the bounds are in order."""
        problems = {}
        if not self.etas[0] < 1 < self.etas[1]:
            problems["etas"] = "must be a number < 1 and a number > 1"
        if self.step_sizes[0] > self.step_sizes[1]:
            problems["step_sizes"] = "must be the smallest, then the largest"
        return problems

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Steps start at ``lr``."""
        slots = super().init(param, hyper)
        return slots | {"step_size": shifted(slots["step_size"], hyper["lr"])}

    def reads_param(self, hyper: Hyper) -> bool:
        """It never does."""
        del hyper
        return False

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        shrink, grow = (like(eta, grad) for eta in hyper["etas"])
        least, most = (like(size, grad) for size in hyper["step_sizes"])
        agreement = grad * slots["prev"]
        turned = agreement < 0
        old = slots["step_size"]
        step_size = torch.where(turned, old * shrink, torch.where(agreement > 0, old * grow, old)).clamp(least, most)
        grad = grad.masked_fill(turned, 0.0)
        return -(grad.sign() * step_size), {"prev": grad, "step_size": step_size}


class Rprop(RuleOptimizer, rule=RpropRule):
    """:class:`RpropRule` as a ``torch.optim.Optimizer``."""
