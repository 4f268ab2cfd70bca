"""Rules applied in place: whole, in blocks that stay in cache, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sweepvi.optim.rule import Hyper, Rule, Slots
from sweepvi.private import validates_distributions

BLOCK = 1 << 16
"""Elements that an elementwise rule updates at a time on a CPU: what it computes in between then stays in cache."""


Advance: TypeAlias = Callable[..., None]
"""Called as :func:`advance` is."""


def advance(
    rule: Rule,
    grad: Tensor,
    value: Tensor,
    slots: Slots,
    hyper: Hyper,
    into: Tensor | None = None,
    stacked: bool = False,
) -> None:
    """Apply a rule in place.

    Args:
        rule: the rule.
        grad: gradient, as the rule's scope wants it; ``[n, …]`` for n parameters if ``stacked``.
        value: the parameter.
        slots: its slots.
        hyper: hyperparameters, scalars and other inputs.
        into: where to write the change, shaped like ``grad``, which it may be; None adds it to ``value``.
        stacked: whether there is a leading dimension of parameters.

    """
    size, rows = grad.numel(), _has_rows(rule, grad)
    stacked = stacked and not rows
    if not (rule.scope == "element" or rows) or size <= BLOCK or grad.device.type != "cpu":
        _apply(rule, grad, value, slots, hyper, into, stacked)
        return
    length = max(1, BLOCK * len(grad) // size)
    for start in range(0, len(grad), length):
        part = slice(start, start + length)
        there = {name: x[part] if isinstance(x, Tensor) and x.numel() == size else x for name, x in hyper.items()}
        block = {name: slot[part] for name, slot in slots.items()}
        _apply(rule, grad[part], value[part], block, there, None if into is None else into[part], stacked)


def _has_rows(rule: Rule, grad: Tensor) -> bool:
    """Whether the first dimension is one that the rule takes as it comes, be it of a parameter or of many."""
    trailing = rule.trailing()
    return rule.scope == "parameter" and trailing is not None and grad.dim() > trailing


def compiled() -> Advance:
    """:func:`advance` compiled by ``torch.compile``: one pass over memory, whatever the rule."""
    # torch's first compilation turns the validation of distributions off, for the whole process.
    validates = validates_distributions()
    run = torch.compile(_apply, dynamic=False)
    torch.distributions.Distribution.set_default_validate_args(validates)

    def advance_compiled(
        rule: Rule,
        grad: Tensor,
        value: Tensor,
        slots: Slots,
        hyper: Hyper,
        into: Tensor | None = None,
        stacked: bool = False,
    ) -> None:
        # As tensors, numbers that change from step to step are inputs; else each would be compiled anew.
        numbers = {name: _as_tensors(value) for name, value in hyper.items() if name not in _NOT_THE_RULES}
        run(rule, grad, value, slots, numbers, into, stacked and not _has_rows(rule, grad))

    return advance_compiled


_NOT_THE_RULES = ("params", "param_names", "clock", "clip", "maximize")


def _as_tensors(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_as_tensors, value))
    return torch.tensor(float(value), dtype=torch.float64) if isinstance(value, int | float) else value


def _apply(
    rule: Rule,
    grad: Tensor,
    value: Tensor,
    slots: Slots,
    hyper: Mapping[str, Any],
    into: Tensor | None,
    stacked: bool,
) -> None:
    if stacked and rule.scope == "parameter":
        delta, new = update_stacked(rule, grad, value, slots, hyper)
    else:
        delta, new = rule.update(grad, value, slots, hyper)
    if into is None:
        value.add_(delta)
    else:
        into.copy_(delta)
    for name, slot in new.items():
        slots[name].copy_(slot)


def update_stacked(rule: Rule, grad: Tensor, value: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
    """:meth:`Rule.update` for every entry of the leading dimension of ``grad``, ``value`` and ``slots``.

    Other inputs in ``hyper`` of the gradient's shape have it too; numbers and tensors without dimensions are common.
    """
    own = {name: x for name, x in hyper.items() if isinstance(x, Tensor) and x.dim() and x.shape[0] == len(grad)}
    common = {name: x for name, x in hyper.items() if name not in own}

    def one(grad: Tensor, value: Tensor, slots: Slots, own: Slots) -> tuple[Tensor, Slots]:
        return rule.update(grad, value, slots, {**common, **own})

    return torch.vmap(one)(grad, value, slots, own)
