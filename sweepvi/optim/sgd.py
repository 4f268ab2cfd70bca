"""Stochastic gradient descent with momentum.

Robbins & Monro, "A Stochastic Approximation Method", 1951; momentum and Nesterov's variant as in Sutskever et al.,
"On the importance of initialization and momentum in deep learning", 2013. Semantics of ``torch.optim.SGD``: the
first gradient enters the momentum undamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import absent, choose, penalized, plus, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class SGDRule(Rule):
    """Stochastic gradient descent, with momentum if asked, as in torch."""

    slots: ClassVar = ("momentum_buffer",)

    lr: Annotated[float, Key("step size", gt=0)] = 1e-4
    momentum: Annotated[float, Key("share of the last update kept", ge=0, lt=1)] = 0.0
    dampening: Annotated[float, Key("share of the gradient kept out of the momentum", ge=0, le=1)] = 0.0
    weight_decay: Annotated[float, Key("L2 penalty, added to the gradient", ge=0)] = 0.0
    nesterov: Annotated[bool, Key("look ahead along the momentum")] = False

    def conflicts(self) -> dict[str, str]:
        """Nesterov's variant needs momentum without dampening."""
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            return {"nesterov": "needs momentum > 0 and dampening = 0"}
        return {}

    def slot_names(self) -> tuple[str, ...]:
        """The momentum, if there is any."""
        return self.slots if self.momentum else ()

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The share of the gradient that enters the momentum: all of the first."""
        return {"entering": choose(step == 1, 1.0, 1 - hyper["dampening"])}

    def reads_param(self, hyper: Hyper) -> bool:
        """Only weight decay does."""
        return not absent(hyper["weight_decay"])

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update`."""
        grad = penalized(grad, param, hyper["weight_decay"])
        if not slots:
            return times(grad, -hyper["lr"]), {}
        momentum = plus(times(slots["momentum_buffer"], hyper["momentum"]), grad, hyper["entering"])
        direction = plus(grad, momentum, hyper["momentum"]) if self.nesterov else momentum
        return times(direction, -hyper["lr"]), {"momentum_buffer": momentum}


class SGD(RuleOptimizer, rule=SGDRule, lr=1e-3):
    """:class:`SGDRule` as a ``torch.optim.Optimizer``."""
