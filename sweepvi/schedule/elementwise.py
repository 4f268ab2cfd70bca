"""Arithmetic that is the same on a Python number and, elementwise, on a float64 tensor.

A schedule is asked for one fit's step, a Python integer, or for many fits' at once, a tensor. Written with these, its
formula serves both, and numbers stay Python numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def where(condition: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the condition holds, ``no`` elsewhere."""
    if not isinstance(condition, Tensor):
        return yes if condition else no
    return torch.where(condition, _float64(yes, condition.device), _float64(no, condition.device))


def _float64(value: Any, device: torch.device) -> Tensor:
    """A tensor; of two Python numbers alone, torch would make float32."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=torch.float64, device=device)


def minimum(value: Any, bound: float) -> Any:
    """The value, at most ``bound``."""
    return value.clamp(max=bound) if isinstance(value, Tensor) else min(value, bound)


def maximum(value: Any, bound: float) -> Any:
    """The value, at least ``bound``."""
    return value.clamp(min=bound) if isinstance(value, Tensor) else max(value, bound)


def cos(value: Any) -> Any:
    """The cosine."""
    return value.cos() if isinstance(value, Tensor) else math.cos(value)


def floor_log(value: Any, base: int) -> Any:
    """The logarithm rounded down; of a power of the base, it may be one too small."""
    return (value.log() / math.log(base)).floor() if isinstance(value, Tensor) else math.floor(math.log(value, base))


def half_cosine(share: Any) -> Any:
    """From 1 at share 0 to 0 at share 1 along half a cosine wave."""
    return (1.0 + cos(math.pi * share)) / 2.0


def between(time: Any, milestones: Sequence[int], values: Sequence[Any]) -> Any:
    """``values[k]`` from the k-th milestone on, to just before the next; ``values[0]`` before the first."""
    value = values[0]
    for milestone, following in zip(milestones, values[1:], strict=True):
        value = where(time >= milestone, following, value)
    return value


def increasing(numbers: Sequence[float]) -> bool:
    """Whether each number is larger than the one before."""
    return all(first < second for first, second in itertools.pairwise(numbers))
