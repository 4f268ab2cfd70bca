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
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
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

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper, step: Step) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        alpha = hyper["alpha"]
        grad = grad + hyper["weight_decay"] * param
        square_avg = alpha * slots["square_avg"] + (1 - alpha) * grad * grad
        grad_avg = alpha * slots["grad_avg"] + (1 - alpha) * grad
        variance = square_avg - grad_avg * grad_avg if self.centered else square_avg
        momentum = hyper["momentum"] * slots["momentum_buffer"] + grad / (variance.sqrt() + hyper["eps"])
        new = {"square_avg": square_avg, "grad_avg": grad_avg, "momentum_buffer": momentum}
        return -hyper["lr"] * momentum, new


class RMSprop(RuleOptimizer, rule=RMSpropRule):
    """:class:`RMSpropRule` as a ``torch.optim.Optimizer``."""
