"""Adafactor: the squared-gradient average of a matrix as an outer product of its row and column averages.

Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018, algorithms 4 and 5. Semantics
of ``torch.optim.Adafactor``, which differs from the paper in what ``lr`` and the first ``eps`` do. With gradient G of
shape n × m, step t, (ε₁, ε₂) = ``eps``, and RMS the root of the mean of the squares of all elements::

    β = 1 − t^beta2_decay
    α = max(ε₂, RMS(p)) · min(lr, 1/√t)
    p ← p − lr · weight_decay · p
    R ← β R + (1 − β) row means of G²,  C ← β C + (1 − β) column means of G²
    V = R C / max(mean of R, ε₁)                (of vectors: V ← β V + (1 − β) G², and no R and C)
    U = G / max(√V, ε₁)
    p ← p − α U / max(1, RMS(U) / d)

A tensor of more dimensions is a stack of matrices in its last two; but RMS is over all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.arithmetic import at_least, like, mixed, plus, smaller, times
from sweepvi.optim.rule import Hyper, Rule, Scope, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class AdafactorRule(Rule):
    """Adafactor, as in torch: steps relative to the parameter's size, memory of a matrix's rows and columns only."""

    slots: ClassVar = ("row_var", "col_var", "variance")
    scope: ClassVar[Scope] = "parameter"

    lr: Annotated[float, Key("largest step, as a share of the parameter's size", gt=0)] = 0.02
    beta2_decay: Annotated[float, Key("power of the step that averages of squares forget by", le=0)] = -0.8
    eps: Annotated[
        tuple[float | None, float],
        Key("least root of an average of squares (null: the type's precision), least size of a parameter", ge=0),
    ] = (None, 1.0)
    d: Annotated[float, Key("bound on the root mean square of the update, before the step size", ge=1)] = 1.0
    weight_decay: Annotated[float, Key("share of the parameter taken off a step, times lr", ge=0)] = 0.0

    def for_parameter(self, name: str, param: Tensor) -> Rule:
        """Itself; complex parameters are refused, as in torch."""
        if param.is_complex():
            raise RuntimeError(f"Adafactor does not support complex parameters{f': {name}' if name else ''}")
        return self

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Of a matrix, averages of its rows and columns; of anything less, of its elements."""
        del hyper
        blank = torch.zeros_like(param, requires_grad=False)
        if param.dim() < 2:
            return {"variance": blank}
        return {"row_var": blank[..., :1].clone(), "col_var": blank[..., :1, :].clone()}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The share of the new squares in the averages, and the relative step size."""
        return {"entering": step ** hyper["beta2_decay"], "relative": smaller(hyper["lr"], 1 / step**0.5)}

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        eps1, eps2 = hyper["eps"]
        eps1 = torch.finfo(grad.dtype).eps if eps1 is None else eps1
        new, variance = _variance(grad, slots, hyper["entering"], eps1)
        direction = at_least(variance, eps1 * eps1).rsqrt() * grad
        size = times(at_least(_rms(param), eps2), hyper["relative"])
        shrink = (_rms(direction) / like(hyper["d"], grad)).clamp(min=1.0)
        delta = direction * (-size / shrink)
        return plus(delta, param, -hyper["lr"] * hyper["weight_decay"]), new


def _variance(grad: Tensor, slots: Slots, entering: Any, eps: Any) -> tuple[Slots, Tensor]:
    """The new averages, and the average square of each element that they mean."""
    if "variance" in slots:
        variance = mixed(slots["variance"], grad * grad, entering)
        return {"variance": variance}, variance
    rows, columns = (
        torch.linalg.vector_norm(grad, dim=dim, keepdim=True).square() / max(grad.shape[dim], 1) for dim in (-1, -2)
    )
    new = {"row_var": mixed(slots["row_var"], rows, entering), "col_var": mixed(slots["col_var"], columns, entering)}
    scale = at_least(new["row_var"].mean(dim=-2, keepdim=True), eps)
    return new, new["row_var"] * new["col_var"] / scale


def _rms(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor) / max(tensor.numel(), 1) ** 0.5


class Adafactor(RuleOptimizer, rule=AdafactorRule, lr=1e-2, eps=(None, 1e-3)):
    """:class:`AdafactorRule` as a ``torch.optim.Optimizer``."""
