"""One group of parameters with its optimizer and its schedule."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import ConfigError, Problem
from sweepvi.loading import described
from sweepvi.optim import Minimizer, Rule, SGDRule
from sweepvi.optim.snapshot import load_slots, plain_group
from sweepvi.optim.torch_face import optimizer_from
from sweepvi.recipe import OptimizerFactory, ParameterGroup


def group_optimizer(settings: ParameterGroup, params: Mapping[str, Tensor]) -> GroupOptimizer:
    """The optimizer of a group that has these parameters, by name."""
    if isinstance(settings.optimizer, Rule):
        return RuleGroup(settings, settings.optimizer, params)
    if isinstance(settings.optimizer, Minimizer):
        return MinimizedGroup(settings, params)
    return GivenGroup(settings, settings.optimizer, params)


class GroupOptimizer(ABC):
    """The optimizer of some named parameters; the schedule sets its step size before every step."""

    optimizer: torch.optim.Optimizer

    def __init__(self, settings: ParameterGroup, params: Mapping[str, Tensor]) -> None:
        self.settings = settings
        self.params = dict(params)
        self.schedule_state = settings.scheduler.init()
        self.rate_factor = 1.0
        """What multiplies the schedule's factor."""

    def replace(self, name: str, tensor: Tensor) -> None:
        """Let another tensor take a parameter's place, with its state."""
        old = self.params[name]
        for group in self.optimizer.param_groups:
            group["params"] = [tensor if param is old else param for param in group["params"]]
        load_slots(self.optimizer, tensor, self.optimizer.state.pop(old, {}))
        self.params[name] = tensor

    def observe(self, done: int, loss: float) -> None:
        """Let the schedule see the loss of the update that followed ``done`` steps; NaN if it was left out."""
        if self.schedule_state:
            seen = torch.tensor(loss, dtype=torch.float64)
            self.schedule_state = self.settings.scheduler.observe(self.schedule_state, done, seen)

    def factor(self, done: int) -> float:
        """The schedule's factor on the step size of the update after ``done`` steps."""
        return self.rate_factor * float(self.settings.scheduler.factor(done, self.schedule_state))

    @property
    def clips_global_norm(self) -> bool:
        """Whether the group takes part in the fit's bound on the norm of all gradients."""
        return False

    @abstractmethod
    def extend(self, params: Mapping[str, Tensor]) -> None:
        """Add parameters."""

    @abstractmethod
    def step(self, done: int, total_norm: Tensor | None) -> float:
        """Update the parameters, after ``done`` steps of the fit; returns the effective step size.

        ``total_norm`` is that of all gradients under the fit's bound, shape [1]; None if this group has all of them.
        """

    @abstractmethod
    def rate(self, done: int) -> float:
        """The effective step size of the update after ``done`` steps; NaN if the optimizer has none."""

    def evaluated(self) -> AbstractContextManager[None]:
        """Inside, parameters are the optimizer's result, which for one that averages is the average."""
        return nullcontext()

    def misfits(self, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
        """What of the optimizer's settings does not fit parameters of these names and shapes: key → what is valid."""
        del shapes
        return {}

    def state(self) -> dict[str, Any]:
        """What is neither a slot nor a schedule's, as JSON can hold it."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        del state


class RuleGroup(GroupOptimizer):
    """A group under an update rule."""

    def __init__(self, settings: ParameterGroup, rule: Rule, params: Mapping[str, Tensor]) -> None:
        super().__init__(settings, params)
        self.rule = rule
        self.optimizer = self._face = optimizer_from(rule, [{"params": list(params.items())}])
        self._group = self._face.param_groups[0]
        self._base = float(self._group["lr"]) * settings.lr_factor

    @property
    def clips_global_norm(self) -> bool:
        """See :attr:`GroupOptimizer.clips_global_norm`."""
        return self.rule.clip.global_norm is not None and self.settings.shares_norm

    def extend(self, params: Mapping[str, Tensor]) -> None:
        """Add parameters."""
        self.params |= params
        self._face.extend(0, list(params), list(params.values()))

    def step(self, done: int, total_norm: Tensor | None) -> float:
        """See :meth:`GroupOptimizer.step`. Steps left out count: schedules and the rule's decay go by one clock."""
        self._face.total_norm = total_norm if self.clips_global_norm else None
        self._group.update(lr=self._base * self.factor(done), clock=done)
        self._face.step()
        return self._face.effective_rate()

    def rate(self, done: int) -> float:
        """See :meth:`GroupOptimizer.rate`."""
        self._group.update(lr=self._base * self.factor(done), clock=done + 1)
        return self._face.effective_rate()

    def evaluated(self) -> AbstractContextManager[None]:
        """See :meth:`GroupOptimizer.evaluated`."""
        return self._face.evaluated()

    def misfits(self, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
        """See :meth:`GroupOptimizer.misfits`."""
        return self.rule.misfits(shapes)


class MinimizedGroup(RuleGroup):
    """All parameters under a minimizer, which moves them itself: here they are kept, and never stepped."""

    def __init__(self, settings: ParameterGroup, params: Mapping[str, Tensor]) -> None:
        super().__init__(settings, SGDRule(), params)

    def step(self, done: int, total_norm: Tensor | None) -> float:
        """Raises ``TypeError``."""
        raise TypeError("a minimizer takes no single steps")


class GivenGroup(GroupOptimizer):
    """A group under an optimizer of the user's, which may change its own step size: the schedule multiplies that."""

    def __init__(self, settings: ParameterGroup, factory: OptimizerFactory, params: Mapping[str, Tensor]) -> None:
        super().__init__(settings, params)
        self.optimizer = _given(factory, list(params.values()))
        rates = [float(group.get("lr", math.nan)) for group in self.optimizer.param_groups]
        self._own = [rate * settings.lr_factor for rate in rates]

    def extend(self, params: Mapping[str, Tensor]) -> None:
        """Add parameters."""
        self.params |= params
        self.optimizer.param_groups[0]["params"].extend(params.values())

    def step(self, done: int, total_norm: Tensor | None) -> float:
        """See :meth:`GroupOptimizer.step`."""
        del total_norm
        before = [own * self.factor(done) for own in self._own]
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, before, strict=True):
            if "lr" in group:
                group["lr"] = rate
        self.optimizer.step()
        for place, (group, rate) in enumerate(zip(groups, before, strict=True)):
            if rate and "lr" in group and float(group["lr"]) != rate:
                self._own[place] *= float(group["lr"]) / rate
        return before[0]

    def rate(self, done: int) -> float:
        """See :meth:`GroupOptimizer.rate`; of the first group that the optimizer has made."""
        return self._own[0] * self.factor(done)

    def state(self) -> dict[str, Any]:
        """What the optimizer keeps in its groups, hyperparameters among it, as far as it is plain data."""
        groups = [plain_group(group) for group in self.optimizer.param_groups]
        return {
            "own": self._own,
            "groups": [{key: value for key, value in group.items() if _is_plain(value)} for group in groups],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self._own = list(state["own"])
        for group, saved in zip(self.optimizer.param_groups, state["groups"], strict=True):
            # JSON knows no tuples.
            group.update({k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved.items()})


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _given(factory: OptimizerFactory, params: list[Tensor]) -> torch.optim.Optimizer:
    """The optimizer that a function of the user's makes; ``ConfigError`` if it makes none that can be stepped."""
    try:
        optimizer = factory([{"params": params}])
    except Exception as error:
        raise ConfigError([Problem("optimizer", f"making it fails: {described(error)}")]) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            [Problem("optimizer", f"must make a torch.optim.Optimizer, made a {type(optimizer).__name__}")]
        )
    passed_on = {id(param) for group in optimizer.param_groups for param in group["params"]}
    if passed_on != set(map(id, params)):
        message = f"must be over all {len(params)} parameters of the groups that it is given, is over {len(passed_on)}"
        raise ConfigError([Problem("optimizer", message)])
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        instead = "try adam, or optimizer=lbfgs with engine.noise=fixed"
        reason = "it evaluates the loss several times a step, and compares values that differ by noise alone"
        raise ConfigError([Problem("optimizer", f"{type(optimizer).__name__} is refused: {reason}; {instead}")])
    return optimizer
