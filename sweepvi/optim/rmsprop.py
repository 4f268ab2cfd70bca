"""RMSprop.

Tieleman & Hinton, "Lecture 6.5 - rmsprop", Coursera: Neural Networks for Machine Learning, 2012; centered variant
after Graves, "Generating Sequences With Recurrent Neural Networks", 2013, equations 38-45. Semantics of
``torch.optim.RMSprop``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, average_square, mixed, penalized, plus_product, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class RMSpropRule(Rule):
    """RMSprop, as in torch: the gradient over the root of its average square."""

    slots: ClassVar = ("square_avg", "grad_avg", "momentum_buffer")

    lr: Annotated[float, Key("step size", gt=0)] = 1e-2
    alpha: Annotated[float, Key("decay of the squared-gradient average", ge=0, lt=1)] = 0.99
    eps: Annotated[float, Key("added to the root of the average", gt=0)] = 1e-8
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    momentum: Annotated[float, Key("share of the last update kept", ge=0, lt=1)] = 0.0
    centered: Annotated[bool, Key("take the squared average of the gradient off")] = False

    def slot_names(self) -> tuple[str, ...]:
        """The average square, and what centering and momentum need."""
        wanted = {"grad_avg": self.centered, "momentum_buffer": self.momentum > 0}
        return tuple(name for name in self.slots if wanted.get(name, True))

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        grad = penalized(grad, param, hyper["weight_decay"])
        new = {"square_avg": average_square(slots["square_avg"], grad, hyper["alpha"])}
        variance = new["square_avg"]
        if self.centered:
            new["grad_avg"] = mixed(slots["grad_avg"], grad, 1 - hyper["alpha"])
            variance = plus_product(variance, new["grad_avg"], new["grad_avg"], -1.0)
        size = shifted(variance.sqrt(), hyper["eps"])
        if "momentum_buffer" not in slots:
            return times(grad, -hyper["lr"]) / size, new
        new["momentum_buffer"] = times(slots["momentum_buffer"], hyper["momentum"]) + grad / size
        return times(new["momentum_buffer"], -hyper["lr"]), new


class RMSprop(RuleOptimizer, rule=RMSpropRule):
    """:class:`RMSpropRule` as a ``torch.optim.Optimizer``."""
