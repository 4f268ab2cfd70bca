"""DoG, distance over gradients.

Ivgi, Hinder & Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule", 2023, equation DoG and
section 4.1, with defaults of the authors' package::

    r ← max(r, ‖x − x₀‖, r_rel (1 + ‖x₀‖)),    G ← G + ‖g‖²,    x ← x − r / √(G + eps) · g
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from averaging import averaged, share
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import shifted, times
from sweepvi.optim.rule import Hyper, Rule, Slots, Step


@dataclass(frozen=True)
class DoGRule(Rule):
    """DoG: the step size is the distance covered over the root of the summed squares of gradients."""

    slots: ClassVar = ("start", "average", "distance", "squares")
    shared: ClassVar = ("distance", "squares")
    scope: ClassVar = "group"

    lr: Annotated[float, Key("factor on the step size found", gt=0)] = 1.0
    eps: Annotated[float, Key("added to the sum of squares", gt=0)] = 1e-8
    r_rel: Annotated[float, Key("first distance, relative to 1 + norm of the parameters", gt=0)] = 1e-6

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Distances are from where the parameters are now."""
        del hyper
        nothing = torch.zeros_like(param[..., :1])
        return {"start": param.clone(), "average": param.clone(), "distance": nothing, "squares": nothing.clone()}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The weight of this iterate in the average."""
        del hyper
        return {"share": share(step)}

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        first = times(shifted(_norm(slots["start"]), 1.0), hyper["r_rel"])
        distance = torch.maximum(slots["distance"], torch.maximum(_norm(param - slots["start"]), first))
        squares = slots["squares"] + _norm(grad) ** 2
        delta = times(grad, -hyper["lr"]) * (distance / shifted(squares, hyper["eps"]).sqrt())
        average = averaged(slots["average"], param + delta, hyper["share"])
        return delta, {"start": slots["start"], "average": average, "distance": distance, "squares": squares}

    def evaluated(self, param: Tensor, slots: Slots, hyper: Hyper) -> Tensor:
        """The average of the iterates."""
        del param, hyper
        return slots["average"]


def _norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
