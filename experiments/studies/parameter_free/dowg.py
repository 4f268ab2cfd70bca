"""DoWG, distance over weighted gradients.

Khaled, Mishchenko & Jin, "DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method", 2023,
algorithm 1, with defaults of the authors' code::

    r² ← max(r², ‖x − x₀‖²),    v ← v + r² ‖g‖²,    x ← x − r² / (√v + eps) · g,    r² = eps at the start
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from averaging import averaged, share
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import like, shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step


@dataclass(frozen=True)
class DoWGRule(Rule):
    """DoWG: DoG with gradients weighted by the distance at the time."""

    slots: ClassVar = ("start", "average", "distance_sq", "squares")
    shared: ClassVar = ("distance_sq", "squares")
    scope: ClassVar = "group"

    lr: Annotated[float, Key("factor on the step size found", gt=0)] = 1.0
    eps: Annotated[float, Key("first squared distance; added to the root of the sum of squares", gt=0)] = 1e-4

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Distances are from where the parameters are now."""
        nothing = torch.zeros_like(param[..., :1])
        return {
            "start": param.clone(),
            "average": param.clone(),
            "distance_sq": nothing + like(hyper["eps"], nothing),
            "squares": nothing,
        }

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The weight of this iterate in the average."""
        del hyper
        return {"share": share(step)}

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        distance_sq = torch.maximum(slots["distance_sq"], ((param - slots["start"]) ** 2).sum(-1, keepdim=True))
        squares = slots["squares"] + distance_sq * (grad**2).sum(-1, keepdim=True)
        delta = times(grad, -hyper["lr"]) * (distance_sq / shifted(squares.sqrt(), hyper["eps"]))
        average = averaged(slots["average"], param + delta, hyper["share"])
        return delta, {"start": slots["start"], "average": average, "distance_sq": distance_sq, "squares": squares}

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average of the iterates."""
        del param, hyper
        return slots["average"]
