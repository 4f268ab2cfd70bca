"""The ``torch.optim.Optimizer`` made from an update rule.

All parameters of a group are updated as one tensor, whatever their number: a model with 300 small parameters costs
one pass, not 300. ``state[p]`` holds views of common buffers, so that ``state_dict`` sees ordinary per-parameter
state, with the names that torch's and Pyro's own classes use.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sweepvi.errors import ConfigError, Problem, raise_if
from sweepvi.keys import keys_of
from sweepvi.optim.advance import Advance, advance, compiled
from sweepvi.optim.batch import Batch, real
from sweepvi.optim.rule import Rule
from sweepvi.private import add_param_group

_FACES: dict[type[Rule], type[RuleOptimizer]] = {}


class RuleOptimizer(torch.optim.Optimizer):
    """Runs an update rule over parameter groups; subclass with ``rule=SomeRule`` to name one.

    Every step is one fused pass, whatever ``foreach`` and ``fused`` say. Groups have all hyperparameters of the rule,
    the step size as ``lr`` whatever the rule calls it, and ``clock``, the number of steps taken.

    Args:
        params: parameters, names and parameters, or groups of them, as for any torch optimizer.
        *args: hyperparameters of the rule, in its order. ``clip`` bounds the gradient that the rule sees:
            ``{"value": 1.0}`` each element, ``{"norm": 1.0}`` each parameter's norm, ``{"global_norm": 1.0}`` the norm
            of all together; ``.grad`` is left as it is.
        maximize: follow the gradient instead of its opposite.
        compile: run the rule as one compiled kernel (``torch.compile``): for parameters of millions of elements.
        foreach, fused: accepted for torch's sake; without effect.
        capturable, differentiable: accepted for torch's sake; ``ConfigError`` if true.
        **hyper: hyperparameters of the rule by key. ``ConfigError`` (a ``ValueError``) if one is out of range.

    """

    rule_class: ClassVar[type[Rule]]
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, rule: type[Rule] | None = None, **defaults: Any) -> None:
        """Name the rule, with defaults where torch's or Pyro's class of the name has others; show the signature."""
        if rule is not None:
            cls.rule_class, cls._defaults = rule, defaults
            _FACES[rule] = cls
            own = list(inspect.signature(RuleOptimizer.__init__).parameters.values())
            params, flags = own[1], [p for p in own if p.kind is p.KEYWORD_ONLY]
            keys = [
                key.replace(default=defaults.get(name, key.default))
                for name, key in inspect.signature(rule).parameters.items()
            ]
            cls.__signature__ = inspect.Signature([params, *keys, *flags])  # type: ignore[attr-defined]

    def __init__(
        self,
        params: Iterable[Any],
        *args: Any,
        maximize: bool = False,
        compile: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        **hyper: Any,
    ) -> None:
        del foreach, fused
        wrong = {"capturable": capturable, "differentiable": differentiable}
        problems = [Problem.of(key, value, "is not supported") for key, value in wrong.items() if value]
        if problems:
            raise ConfigError(problems)
        given = {**self._defaults, **inspect.signature(self.rule_class).bind_partial(*args, **hyper).arguments}
        rate = self.rule_class.rate
        kept = {key: value for key, value in given.items() if isinstance(value, Tensor) or key == rate}
        defaults = _rule(self.rule_class, given).hyper() | kept
        self._compile = compile
        self._reset()
        super().__init__(params, {**defaults, "maximize": maximize})

    def _reset(self) -> None:
        self._rules: list[Rule] = []
        self._batches: dict[int, _Batches] = {}
        self._advance: Advance = compiled() if self._compile else advance
        self._at_result = False
        self.total_norm: Tensor | None = None
        """Norm of all gradients for the next step's global clipping, shape [1], if there are more than these."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; the group may override any hyperparameter, checked here. Its clock is that of the first."""
        add_param_group(self, param_group)
        group = self.param_groups[-1]
        rule = _rule(self.rule_class, {key: group[key] for key in _keys(self.rule_class)})
        group["clip"] = rule.clip.bounds()
        group.setdefault("lr", group[rule.rate])
        group.setdefault("clock", self.param_groups[0].get("clock", 0))
        self._rules.append(rule)

    def extend(self, index: int, names: list[str], params: list[Tensor]) -> None:
        """Add parameters to a group that exists; its parameters must have names."""
        self.param_groups[index]["params"].extend(params)
        self.param_groups[index]["param_names"].extend(names)

    def state_dict(self) -> dict[str, Any]:
        """As of any torch optimizer, with a count of updates for each parameter: other classes add to it in place."""
        saved = super().state_dict()
        saved["state"] = {
            place: {**state, "step": state["step"].clone()} if _counts(state) else state
            for place, state in saved["state"].items()
        }
        return saved

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: what is kept beside common buffers and compiled code, which are made anew."""
        return {**super().__getstate__(), "_compile": self._compile}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over state and groups; what another class's groups lack has its default."""
        super().__setstate__(state)
        self._reset()
        for group in self.param_groups:
            for key in (*_keys(self.rule_class), "maximize"):
                group.setdefault(key, self.defaults[key])
            group.setdefault("lr", group[self.rule_class.rate])
            # Where there is no clock, decay so far is in the step size itself, as in Pyro's classes.
            group.setdefault("clock", 0)
            # A schedule may have brought the step size to where none may start, such as 0.
            values = {key: group[key] for key in _keys(self.rule_class) if key != self.rule_class.rate}
            self._rules.append(_rule(self.rule_class, values))

    def forget_batches(self) -> None:
        """Build common buffers anew at the next step: for whoever has put other tensors into ``state``."""
        self._batches.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``.grad`` is left as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = [self._gathered(index) for index in range(len(self.param_groups))]
        norm = self._global_norm(batches)
        for group, rule, own in zip(self.param_groups, self._rules, batches, strict=True):
            group["clock"] += 1
            rate = group["lr"].item() if isinstance(group["lr"], Tensor) else group["lr"]
            hyper = {**group, rule.rate: rate * rule.decay(group, group["clock"])}
            for batch in own:
                batch.update(hyper, norm, self._advance)
        return loss

    def effective_rate(self, index: int = 0) -> float:
        """A group's step size at its clock: with the rule's own decay, and its own choice of size if it has one."""
        group, rule = self.param_groups[index], self._rules[index]
        rate = float(group["lr"]) * float(rule.decay(group, group["clock"]))
        state = next((self.state[param] for param in group["params"] if self.state.get(param)), None)
        return rate if state is None else rate * float(rule.size(state))

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside, parameters are the rule's result, which for one that averages is the average; outside, as before."""
        before: list[tuple[Tensor, Tensor]] = []
        results = () if self._at_result else self._results()
        self._at_result, outer = True, self._at_result
        try:
            with torch.no_grad():
                for param, point in results:
                    before.append((param, param.detach().clone()))
                    param.copy_(point)
            yield
        finally:
            self._at_result = outer
            with torch.no_grad():
                for param, value in before:
                    param.copy_(value)

    def _results(self) -> Iterator[tuple[Tensor, Tensor]]:
        for group, rule in zip(self.param_groups, self._rules, strict=True):
            if type(rule).evaluated is Rule.evaluated:
                continue
            for param in group["params"]:
                if self.state.get(param):
                    value = real([param.detach()])[0]
                    yield value, rule.evaluated(value, self.state[param], group)

    def _gathered(self, index: int) -> list[Batch]:
        """A group's batches with the gradients of this step."""
        group, rule = self.param_groups[index], self._rules[index]
        active = [param for param in group["params"] if param.grad is not None]
        if rule.scope == "group" and active:
            active = group["params"]
        cached = self._batches.get(index)
        if cached is None or not _same(cached.active, active):
            cached = self._batches[index] = _Batches(list(active), self._batched(index, active))
        for batch in cached.batches:
            try:
                batch.gather(group["maximize"])
            except RuntimeError:
                self._refuse_sparse(active)
                raise
        return cached.batches

    def _batched(self, index: int, active: list[Tensor]) -> list[Batch]:
        """Put together what can be updated as one: same rule, type, device and number of updates so far."""
        group, alike = self.param_groups[index], []
        names = dict(zip(map(id, group["params"]), group.get("param_names", ()), strict=False))
        for param in active:
            rule = self._rules[index].for_parameter(names.get(id(param), ""), param)
            key = _alike(rule, param, self.state[param])
            same = next((params for other, params in alike if other == key), None)
            if same is None:
                alike.append((key, same := []))
            same.append(param)
        if self._rules[index].scope == "group" and len(alike) > 1:
            raise RuntimeError(f"{type(self).__name__} needs one type and device for all parameters of a group")
        return [Batch.of(key[0], params, [self.state[param] for param in params], group) for key, params in alike]

    def _refuse_sparse(self, params: list[Tensor]) -> None:
        if any(param.grad is not None and param.grad.is_sparse for param in params):
            raise RuntimeError(f"{type(self).__name__} does not take sparse gradients; make them dense")

    def _global_norm(self, batches: list[list[Batch]]) -> Tensor | None:
        """Norm of the gradients of all groups that clip by it, shape [1]; None if none does."""
        clipping = [
            own for group, own in zip(self.param_groups, batches, strict=True) if "global_norm" in group["clip"]
        ]
        if self.total_norm is not None or not any(clipping):
            return self.total_norm
        return torch.stack([batch.square() for own in clipping for batch in own]).sum().sqrt().reshape(1)


@dataclass
class _Batches:
    active: list[Tensor]
    batches: list[Batch]


def _alike(rule: Rule, param: Tensor, state: dict[str, Any]) -> tuple[Any, ...]:
    if rule.scope == "group":
        return rule, param.dtype, param.device
    shape = param.shape if rule.scope == "parameter" else None
    return rule, param.dtype, param.device, int(state.get("step", 0)), shape


def _keys(rule_class: type[Rule]) -> list[str]:
    return [spec.name for spec in keys_of(rule_class)]


def _rule(rule_class: type[Rule], values: dict[str, Any]) -> Rule:
    """The rule of some hyperparameters; a tensor of one number counts as it. A step size of 0 freezes a group."""
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)}
    many = {key: tuple(value.shape) for key, value in tensors.items() if value.numel() != 1}
    raise_if([Problem(key, f"must be one number, not a tensor of shape {shape}") for key, shape in many.items()])
    numbers: dict[str, Any] = {**values, **{key: value.item() for key, value in tensors.items()}}
    if numbers.get(rule_class.rate) == 0:
        del numbers[rule_class.rate]
    return rule_class(**numbers)


def _counts(state: Any) -> bool:
    """Whether this is a parameter's state with a counter in it; hooks may have put anything beside those."""
    return isinstance(state, dict) and isinstance(state.get("step"), Tensor)


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(operator.is_, left, right))


def optimizer_from(rule: Rule, params: Iterable[Any]) -> RuleOptimizer:
    """The optimizer of an already chosen rule; groups in ``params`` may override its hyperparameters."""
    kind = type(rule)
    face = _FACES.get(kind) or type(kind.__name__.removesuffix("Rule"), (RuleOptimizer,), {"rule_class": kind})
    return face(params, **rule.hyper())
