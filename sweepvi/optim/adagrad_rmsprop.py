"""AdagradRMSProp: the step sizes of automatic differentiation variational inference (ADVI).

Kucukelbir et al., "Automatic Differentiation Variational Inference", 2017, equations 10 and 11. Semantics of
``pyro.optim.AdagradRMSProp``, 1.9.2. With gradient g and step n::

    s ← g² at the first step,  (1 − t) s + t g² after it
    p ← p − eta · n^(−½ + delta) · g / (1 + √s)

Unlike Pyro's class, the optimizer keeps the step size in the group's ``lr`` too, and goes by that: schedulers work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import choose, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdagradRMSPropRule(Rule):
    """Pyro's AdagradRMSProp, ADVI's step sizes: falling as Adagrad's, by an average of squares as RMSprop's."""

    slots: ClassVar = ("sum",)
    rate: ClassVar = "eta"

    eta: Annotated[float, Key("step size at the start", gt=0)] = 1.0
    delta: Annotated[float, Key("the step size falls by the power -1/2 + delta of the step", ge=0)] = 1e-16
    t: Annotated[float, Key("share of the new squared gradient in the average", gt=0, le=1)] = 0.1

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size, and the shares of the old average and the new square: all of the first square."""
        first = step == 1
        return {
            "size": hyper["eta"] * step ** (-0.5 + hyper["delta"]),
            "kept": choose(first, 0.0, 1.0 - hyper["t"]),
            "entering": choose(first, 1.0, hyper["t"]),
        }

    def reads_param(self, hyper: Hyper) -> bool:
        """It never does."""
        del hyper
        return False

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        total = times(slots["sum"], hyper["kept"]) + times(grad, hyper["entering"]) * grad
        return times(grad, -hyper["size"]) / shifted(total.sqrt(), 1.0), {"sum": total}


class AdagradRMSProp(RuleOptimizer, rule=AdagradRMSPropRule):
    """:class:`AdagradRMSPropRule` as a ``torch.optim.Optimizer``."""
