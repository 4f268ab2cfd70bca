"""Tensor arithmetic with hyperparameters that are numbers, or tensors of one entry a lane.

Hyperparameters and steps that are tensors are float64: what is computed of them alone, such as ``1 − βᵗ``, needs it.
Here they meet tensors of the parameter's type, and take that type. With numbers, each function is one torch operation,
the one that torch's own optimizers use, so that results agree to the last bit.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = Any
"""A number, or a tensor that broadcasts against the parameter."""


def like(scalar: Scalar, tensor: Tensor) -> Scalar:
    """A scalar in the type of ``tensor``; a number as it is."""
    return scalar.to(tensor.dtype) if isinstance(scalar, Tensor) else scalar


def times(tensor: Tensor, scale: Scalar) -> Tensor:
    """``scale · tensor``."""
    return tensor * like(scale, tensor)


def shifted(tensor: Tensor, offset: Scalar) -> Tensor:
    """``tensor + offset``."""
    return tensor + like(offset, tensor)


def plus(tensor: Tensor, other: Tensor, scale: Scalar = 1.0) -> Tensor:
    """``tensor + scale · other``."""
    if isinstance(scale, Tensor):
        return tensor + like(scale, other) * other
    return torch.add(tensor, other, alpha=scale)


def plus_product(tensor: Tensor, left: Tensor, right: Tensor, scale: Scalar) -> Tensor:
    """``tensor + scale · left · right``."""
    if isinstance(scale, Tensor):
        return tensor + like(scale, left) * left * right
    return torch.addcmul(tensor, left, right, value=scale)


def penalized(grad: Tensor, param: Tensor, weight_decay: Scalar) -> Tensor:
    """``grad + weight_decay · param``: the gradient with an L2 penalty's, if there is one."""
    return grad if absent(weight_decay) else plus(grad, param, weight_decay)


def mixed(old: Tensor, new: Tensor, weight: Scalar) -> Tensor:
    """``old + weight · (new − old)``, as torch's Adams average; exact where ``weight`` is 1."""
    return torch.lerp(old, new, like(weight, old))


def average(old: Tensor, new: Tensor, beta: Scalar) -> Tensor:
    """The running average ``β · old + (1 − β) · new``."""
    return plus(times(old, beta), new, 1 - beta)


def average_square(old: Tensor, new: Tensor, beta: Scalar) -> Tensor:
    """The running average of squares ``β · old + (1 − β) · new²``."""
    return plus_product(times(old, beta), new, new, 1 - beta)


def at_least(tensor: Tensor, bound: Scalar) -> Tensor:
    """Each element, or ``bound`` where that is more; NaN stays NaN."""
    return tensor.clamp(min=like(bound, tensor))


def clamped(tensor: Tensor, bound: Scalar) -> Tensor:
    """Each element within ``±bound``; NaN stays NaN."""
    bound = like(bound, tensor)
    return tensor.clamp(-bound, bound)


def absent(scalar: Scalar) -> bool:
    """Whether a scalar is the number 0, so that what it scales can be left out; a tensor never is."""
    return not isinstance(scalar, Tensor) and scalar == 0


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """``base ^ exponent`` of a base of 0 or more; an exponent of 0 only with a base above 0.

    Of a tensor by way of its logarithm, which is computed once for a fit's base: vectorised machine code has an
    exponential and no power. The relative error is 2⁻⁵³ times the result's logarithm: 10⁻¹⁴ where 1 minus it matters.
    """
    return (exponent * base.log()).exp() if isinstance(base, Tensor) else base**exponent


def choose(condition: bool | Tensor, yes: Scalar, no: Scalar) -> Scalar:
    """``yes`` where ``condition`` holds, else ``no``: a number, or a float64 tensor if the condition is a tensor."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    # Of two numbers, torch.where makes a tensor of the default type.
    yes = yes if isinstance(yes, Tensor) else torch.full_like(condition, yes, dtype=torch.float64)
    return torch.where(condition, yes, no)


def smaller(one: Scalar, other: Scalar) -> Scalar:
    """The smaller of two scalars."""
    return choose(one < other, one, other)


def larger(one: Scalar, other: Scalar) -> Scalar:
    """The larger of two scalars."""
    return choose(one > other, one, other)
