"""The ``torch.optim.Optimizer`` made from an update rule.

All parameters of a group are updated as one concatenated tensor, whatever their number: a model with 300 small
parameters costs one pass, not 300. Slots live in flat buffers; ``state[p]`` holds views of them, so that
``state_dict`` sees ordinary per-parameter state.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sweepvi.optim.rule import Rule, Slots
from sweepvi.private import foreach_add_, foreach_copy_

_FACES: dict[type[Rule], type[RuleOptimizer]] = {}


class RuleOptimizer(torch.optim.Optimizer):
    """Runs an update rule over parameter groups; subclass with ``rule=SomeRule`` to name one.

    Args:
        params: parameters, or groups of them, as for any torch optimizer.
        *args: hyperparameters of the rule, in its order.
        **hyper: hyperparameters of the rule by key. ``ConfigError`` (a ``ValueError``) if one is out of range.

    """

    rule_class: ClassVar[type[Rule]]

    def __init_subclass__(cls, rule: type[Rule] | None = None) -> None:
        """Name the rule, and show its hyperparameters as the signature."""
        if rule is not None:
            cls.rule_class = rule
            _FACES[rule] = cls
            params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
            cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
                [params, *inspect.signature(rule).parameters.values()]
            )

    def __init__(self, params: Iterable[Any], *args: Any, **hyper: Any) -> None:
        self._rules: list[Rule] = []
        self._flats: dict[int, _Flats] = {}
        super().__init__(params, self.rule_class(*args, **hyper).hyper())

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; the group may override any hyperparameter, checked here."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("clock", 0)
        keys = inspect.signature(self.rule_class).parameters
        self._rules.append(self.rule_class(**{key: group[key] for key in keys}))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load slots, steps and hyperparameters, as torch does."""
        super().load_state_dict(state_dict)
        self._flats.clear()

    def rebind(self, old: Tensor, new: Tensor) -> None:
        """Let ``new`` take the place of parameter ``old``, with its state."""
        for group in self.param_groups:
            group["params"] = [new if param is old else param for param in group["params"]]
        if old in self.state:
            self.state[new] = self.state.pop(old)
        self._flats.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``.grad`` is left as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, (group, rule) in enumerate(zip(self.param_groups, self._rules, strict=True)):
            group["clock"] += 1
            hyper = group | {"lr": group["lr"] * rule.decay(group, group["clock"])}
            active = [param for param in group["params"] if param.grad is not None]
            for flat in self._flats_of(index, rule, active):
                flat.update(rule, hyper)
                for param in flat.params:
                    self.state[param]["step"] = flat.step
        return loss

    def _flats_of(self, index: int, rule: Rule, active: list[Tensor]) -> list[_Flat]:
        cached = self._flats.get(index)
        if cached is None or not _same(cached.active, active):
            cached = self._flats[index] = _Flats(active, self._concatenate(rule, active))
        return cached.flats

    def _concatenate(self, rule: Rule, active: list[Tensor]) -> list[_Flat]:
        """Concatenate what can be updated as one: same type, device and number of updates so far."""
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for param in active:
            state = self.state[param]
            if not state:
                state.update(step=0, **rule.init(param))
            alike.setdefault((param.dtype, param.device, state["step"]), []).append(param)
        return [_Flat.of(params, [self.state[param] for param in params]) for params in alike.values()]


@dataclass
class _Flats:
    active: list[Tensor]
    flats: list[_Flat]


@dataclass
class _Flat:
    """Parameters that are updated as one tensor, with buffers and the views that connect the two."""

    params: list[Tensor]
    step: int
    slots: Slots
    grad: Tensor
    grads: list[Tensor]
    value: Tensor
    values: list[Tensor]

    @classmethod
    def of(cls, params: list[Tensor], states: list[dict[str, Any]]) -> _Flat:
        """Move the slots of the parameters into flat buffers, and leave views of them in the states."""
        slots = {}
        for name in states[0]:
            if name == "step":
                continue
            slots[name] = torch.cat([state[name].reshape(-1) for state in states])
            for state, view in zip(states, _views(slots[name], params), strict=True):
                state[name] = view
        grad = torch.cat([param.reshape(-1) for param in params])
        value = grad.clone()
        return cls(params, states[0]["step"], slots, grad, _views(grad, params), value, _views(value, params))

    def update(self, rule: Rule, hyper: dict[str, Any]) -> None:
        """One update of all parameters, in place."""
        self.step += 1
        foreach_copy_(self.grads, [param.grad for param in self.params])
        foreach_copy_(self.values, self.params)
        delta, slots = rule.update(self.grad, self.value, self.slots, hyper, self.step)
        for name, slot in slots.items():
            self.slots[name].copy_(slot)
        # The gradient is used up; its buffer has views of every parameter's shape already.
        self.grad.copy_(delta)
        foreach_add_(self.params, self.grads)


def _views(flat: Tensor, params: list[Tensor]) -> list[Tensor]:
    pieces = flat.split([param.numel() for param in params])
    return [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(operator.is_, left, right))


def optimizer_from(rule: Rule, params: Iterable[Any]) -> RuleOptimizer:
    """The optimizer of an already chosen rule; groups in ``params`` may override its hyperparameters."""
    kind = type(rule)
    face = _FACES.get(kind) or type(kind.__name__.removesuffix("Rule"), (RuleOptimizer,), {"rule_class": kind})
    return face(params, **rule.hyper())
