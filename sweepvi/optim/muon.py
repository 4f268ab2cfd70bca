"""Muon: momentum of a matrix, made orthogonal.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; its ``match_rms_adamw`` after Liu et
al., "Muon is Scalable for LLM Training", 2025, equation 4. Semantics of ``torch.optim.Muon``. With gradient G of shape
A × B, (a, b, c) = ``ns_coefficients``, and κ = √max(1, A/B) for ``original``, 0.2 √max(A, B) for ``match_rms_adamw``::

    M ← momentum · M + (1 − momentum) G
    X = (1 − momentum) G + momentum · M if nesterov else M,  X ← X / max(‖X‖, eps)
    X ← a X + (b XXᵀ + c (XXᵀ)²) X              ns_steps times, in bfloat16
    p ← p − lr · weight_decay · p − lr · κ · X

torch's class takes matrices alone. Here everything else is updated by AdamW with the same step size and weight decay,
as the authors recommend, so that it can be given all parameters of a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from sweepvi.keys import Key
from sweepvi.optim.adamw import AdamWRule
from sweepvi.optim.arithmetic import at_least, mixed, plus, times
from sweepvi.optim.rule import Hyper, Rule, Scope, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class MuonRule(Rule):
    """Muon, as in torch, for matrices; AdamW for everything else."""

    slots: ClassVar = ("momentum_buffer",)
    scope: ClassVar[Scope] = "parameter"

    lr: Annotated[float, Key("step size", gt=0)] = 0.02
    weight_decay: Annotated[float, Key("share of the parameter taken off a step, times lr", ge=0)] = 0.0
    momentum: Annotated[float, Key("decay of the gradient's average", ge=0, lt=1)] = 0.95
    nesterov: Annotated[bool, Key("look ahead along the momentum")] = True
    ns_coefficients: Annotated[tuple[float, float, float], Key("coefficients of the Newton-Schulz iteration")] = (
        3.4445,
        -4.7750,
        2.0315,
    )
    eps: Annotated[float, Key("least norm to divide a matrix by", ge=0)] = 1e-7
    ns_steps: Annotated[int, Key("Newton-Schulz iterations", ge=1, lt=100)] = 5
    adjust_lr_fn: Annotated[
        Literal["original", "match_rms_adamw"] | None,
        Key("how the step size depends on a matrix's shape: by Jordan (null too), or for steps as large as AdamW's"),
    ] = "match_rms_adamw"

    def for_parameter(self, name: str, param: Tensor) -> Rule:
        """Itself for a real matrix, AdamW for all else."""
        del name
        if param.dim() == 2 and not param.is_complex():
            return self
        return Companion(lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        momentum, lr = hyper["momentum"], hyper["lr"]
        buffer = mixed(slots["momentum_buffer"], grad, 1 - momentum)
        ahead = mixed(grad, buffer, momentum) if self.nesterov else buffer
        # In the parameter's type again: bfloat16 has no digits to spare for the step size.
        direction = self._orthogonal(ahead, hyper["eps"]).to(grad.dtype)
        delta = times(direction, -lr * self._adjusted(*grad.shape))
        return plus(delta, param, -lr * hyper["weight_decay"]), {"momentum_buffer": buffer}

    def _orthogonal(self, matrix: Tensor, eps: Any) -> Tensor:
        """Near the orthogonal factor of a matrix's polar decomposition; singular values between about ½ and 1½."""
        a, b, c = self.ns_coefficients
        tall = matrix.shape[0] > matrix.shape[1]
        x = matrix.bfloat16()
        x = x.mT if tall else x
        x = x / at_least(torch.linalg.vector_norm(x), eps)
        for _ in range(self.ns_steps):
            gram = _product(x, x.mT).bfloat16()
            polynomial = (b * gram.float() + c * _product(gram, gram)).bfloat16()
            x = (a * x.float() + _product(polynomial, x)).bfloat16()
        return x.mT if tall else x

    def _adjusted(self, rows: int, columns: int) -> float:
        if self.adjust_lr_fn == "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        return math.sqrt(max(1, rows / max(columns, 1)))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """A product of bfloat16 matrices before it is rounded.

    torch's own kernels round where this is rounded when they are given one matrix, but elsewhere when they are given
    many, and the iteration makes much of the difference: a matrix must not depend on how many run beside it.
    """
    return left.float() @ right.float()


@dataclass(frozen=True)
class Companion(AdamWRule):
    """AdamW for what is no matrix: step size and weight decay are Muon's, the rest AdamW's own."""

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """Beside AdamW's, what Muon's hyperparameters lack, or mean something else by."""
        own = {"betas": self.betas, "eps": self.eps}
        return own | super().scalars({**hyper, **own}, step)


class Muon(RuleOptimizer, rule=MuonRule, lr=1e-3, weight_decay=0.1, adjust_lr_fn=None):
    """:class:`MuonRule` as a ``torch.optim.Optimizer``."""
