"""Parameters that are updated as one tensor, with the buffers and views that connect the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sweepvi.optim.advance import Advance
from sweepvi.optim.clip import clipped
from sweepvi.optim.rule import Rule, Slots
from sweepvi.private import foreach_add_, foreach_copy_, foreach_zero_

State: TypeAlias = dict[str, Any]
"""What a torch optimizer keeps for a parameter: the number of its updates under ``step``, and its slots."""


@dataclass
class Batch:
    """Parameters with one rule, type, device and number of updates.

    Gradients are gathered into one buffer, slots live in another each; the state of each parameter holds views of the
    latter. A parameter that is alone is updated where it is, and its gradient is read where it is.
    """

    rule: Rule
    params: list[Tensor]
    step: int
    counter: Tensor
    """``step`` as the states have it: one tensor for all."""
    slots: Slots
    grad: Tensor
    grads: list[Tensor] = field(default_factory=list)
    """Views of ``grad``, one a parameter; none if there is only one parameter."""
    value: Tensor | None = None
    values: list[Tensor] = field(default_factory=list)
    is_complex: bool = False

    @classmethod
    def of(cls, rule: Rule, params: list[Tensor], states: list[State], hyper: Mapping[str, Any]) -> Batch:
        """Move the slots of parameters into common buffers, and leave views of them in the states."""
        for param, state in zip(params, states, strict=True):
            _complete(rule, param, state, hyper)
        counts = [int(state["step"]) for state in states]
        counter = torch.tensor(float(max(counts)), dtype=torch.float64)
        oldest = states[counts.index(max(counts))]
        slots = {}
        for name in (name for name in states[0] if name != "step"):
            if name in rule.shared:
                slots[name] = oldest[name].clone()
                views = [slots[name]] * len(params)
            else:
                slots[name] = _join(rule, [state[name] for state in states])
                views = _parts(rule, slots[name], [state[name] for state in states])
            for state, view in zip(states, views, strict=True):
                state[name] = view
        for state in states:
            state["step"] = counter
        batch = cls(rule, params, max(counts), counter, slots, params[0], is_complex=params[0].is_complex())
        if len(params) > 1 or not params[0].is_contiguous():
            batch._make_buffers()
        return batch

    def _make_buffers(self) -> None:
        params = self._real(self.params)
        self.grad, self.value = (_join(self.rule, params) for _ in range(2))
        self.grads, self.values = (_parts(self.rule, buffer, params) for buffer in (self.grad, self.value))

    def gather(self, maximize: bool) -> None:
        """Take in the gradients; a parameter without one has zeros."""
        if not self.grads:
            grad = self.params[0].grad
            assert grad is not None
            self.grad = -shaped(self.rule, grad) if maximize else shaped(self.rule, grad)
            return
        grads = [param.grad for param in self.params]
        missing = [place for place, grad in enumerate(grads) if grad is None] if self.rule.scope == "group" else []
        if missing:
            foreach_zero_([self.grads[place] for place in missing])
        views = (
            [view for view, grad in zip(self.grads, grads, strict=True) if grad is not None] if missing else self.grads
        )
        foreach_copy_(views, self._real([grad for grad in grads if grad is not None]))
        if maximize:
            self.grad.neg_()

    def square(self) -> Tensor:
        """Sum of the squares of the gradients, in float64: there, no square of a float32 overflows."""
        return torch.linalg.vector_norm(self.grad, dtype=torch.float64) ** 2

    def update(self, hyper: Mapping[str, Any], global_norm: Tensor | None, advance: Advance) -> None:
        """One update of all parameters, in place, with the gradients gathered."""
        self.step += 1
        self.counter.fill_(float(self.step))
        grad = self._clipped(hyper["clip"], global_norm)
        hyper = {**hyper, **self.rule.scalars(hyper, self.step), **self._inputs()}
        if not self.grads:
            advance(self.rule, grad, shaped(self.rule, self.params[0]), self.slots, hyper)
            return
        if self.rule.reads_param(hyper):
            foreach_copy_(self.values, self._real(self.params))
        assert self.value is not None
        many = len(self.params) > 1
        advance(self.rule, grad, self.value, self.slots, hyper, into=self.grad, stacked=many)
        # The gradients are used up: their buffer, which has views of every parameter's shape, holds the changes now.
        foreach_add_(self._real(self.params), self.grads)

    def _real(self, tensors: list[Tensor]) -> list[Tensor]:
        return real(tensors) if self.is_complex else tensors

    def _clipped(self, bounds: Mapping[str, Any], global_norm: Tensor | None) -> Tensor:
        if not bounds:
            return self.grad
        sizes = [param.numel() for param in self._real(self.params)]
        return clipped(self.grad.reshape(-1), bounds, sizes, global_norm).view(self.grad.shape)

    def _inputs(self) -> Slots:
        """The rule's other inputs, as buffers; where only some parameters have one, the others have its default."""
        if type(self.rule).inputs is Rule.inputs:
            return {}
        each = [self.rule.inputs(param) for param in self.params]
        names = dict.fromkeys(name for inputs in each for name in inputs)
        blanks = [torch.ones_like(param, dtype=torch.bool) for param in self.params] if names else []
        return {
            name: _join(self.rule, [inputs.get(name, blank) for inputs, blank in zip(each, blanks, strict=True)])
            for name in names
        }


def real(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors as the optimizer sees them: without history, complex ones as pairs of real numbers."""
    if any(tensor.is_complex() for tensor in tensors):
        return [torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor for tensor in tensors]
    return list(tensors)


def shaped(rule: Rule, tensor: Tensor) -> Tensor:
    """One parameter, or its gradient, as the rule wants it: in its own shape, or flat."""
    tensor = real([tensor.detach()])[0]
    return tensor if rule.scope == "parameter" else tensor.reshape(-1)


def _complete(rule: Rule, param: Tensor, state: State, hyper: Mapping[str, Any]) -> None:
    """Give a state the slots that it lacks, and no others; what another class keeps as one number is spread out."""
    fresh = rule.init(shaped(rule, param), hyper)
    for name in state.keys() - fresh.keys() - {"step"}:
        del state[name]
    # Classes that do not count, such as torch's SGD, have no state before the first update.
    state.setdefault("step", int(any(state.get(name) is not None for name in fresh)))
    for name, slot in fresh.items():
        if name not in rule.shared and rule.scope != "parameter":
            slot = slot.view(real([param])[0].shape)
        old = state.get(name)
        if isinstance(old, Tensor) and old.is_complex():
            old = state[name] = torch.view_as_real(old)
        if old is None:
            state[name] = slot
        elif not isinstance(old, Tensor) or old.shape != slot.shape:
            state[name] = torch.as_tensor(old, dtype=slot.dtype, device=slot.device).expand_as(slot)


def _join(rule: Rule, tensors: Sequence[Tensor]) -> Tensor:
    """Many as one buffer: stacked if the rule wants their shape, else concatenated. One alone keeps its shape."""
    if rule.scope != "parameter":
        return torch.cat([tensor.reshape(-1) for tensor in tensors])
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0].clone()


def _parts(rule: Rule, buffer: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of a buffer of :func:`_join`, in the shapes of what was joined."""
    if rule.scope == "parameter":
        return list(buffer.unbind()) if len(tensors) > 1 else [buffer]
    pieces = buffer.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
