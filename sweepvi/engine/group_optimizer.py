"""One group of parameters with its optimizer and its schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import ConfigError, Problem
from sweepvi.loading import described
from sweepvi.optim import Rule, RuleOptimizer
from sweepvi.optim.snapshot import load_slots, plain_group
from sweepvi.optim.torch_face import optimizer_from
from sweepvi.recipe import OptimizerFactory, ParameterGroup


class GroupOptimizer:
    """The optimizer of some named parameters; the schedule sets its step size before every step.

    An optimizer that was given may change its own step size: the schedule multiplies what it has come to.
    """

    def __init__(self, settings: ParameterGroup, params: Mapping[str, Tensor]) -> None:
        self.settings = settings
        self.params = dict(params)
        rule = settings.optimizer
        group = {"params": list(params.items())}
        self.optimizer = (
            optimizer_from(rule, [group]) if isinstance(rule, Rule) else _given(rule, list(params.values()))
        )
        self.schedule_state = settings.scheduler.init()
        self._own = [float(g.get("lr", float("nan"))) * settings.lr_factor for g in self.optimizer.param_groups]

    @property
    def clips_global_norm(self) -> bool:
        """Whether the group takes part in the fit's bound on the norm of all gradients."""
        rule = self.settings.optimizer
        return isinstance(rule, Rule) and rule.clip.global_norm is not None and self.settings.shares_norm

    def extend(self, params: Mapping[str, Tensor]) -> None:
        """Add parameters."""
        self.params |= params
        if isinstance(self.optimizer, RuleOptimizer):
            self.optimizer.extend(0, list(params), list(params.values()))
        else:
            self.optimizer.param_groups[0]["params"].extend(params.values())

    def replace(self, name: str, tensor: Tensor) -> None:
        """Let another tensor take a parameter's place, with its state."""
        old = self.params[name]
        for group in self.optimizer.param_groups:
            group["params"] = [tensor if param is old else param for param in group["params"]]
        load_slots(self.optimizer, tensor, self.optimizer.state.pop(old, {}))
        self.params[name] = tensor

    def step(self, done: int, total_norm: Tensor | None) -> float:
        """Update the parameters, after ``done`` steps of the fit; returns the effective step size."""
        factor = self._factor(done)
        if isinstance(self.optimizer, RuleOptimizer):
            self.optimizer.total_norm = total_norm if self.clips_global_norm else None
            # Steps left out count: schedules and the rule's own decay run by one clock.
            self.optimizer.param_groups[0].update(lr=self._own[0] * factor, clock=done)
            self.optimizer.step()
            return self.optimizer.effective_rate()
        groups = [group for group in self.optimizer.param_groups if "lr" in group]
        before = [own * factor for own in self._own]
        for group, rate in zip(groups, before, strict=False):
            group["lr"] = rate
        self.optimizer.step()
        for place, (group, rate) in enumerate(zip(groups, before, strict=False)):
            if rate and float(group["lr"]) != rate:
                self._own[place] *= float(group["lr"]) / rate
        return before[0]

    def observe(self, done: int, loss: float) -> None:
        """Let the schedule see the loss of the update that followed ``done`` steps."""
        if self.schedule_state:
            seen = torch.tensor(loss, dtype=torch.float64)
            self.schedule_state = self.settings.scheduler.observe(self.schedule_state, done, seen)

    def rate(self, done: int) -> float:
        """The effective step size of the update after ``done`` steps; NaN if the optimizer has none."""
        rate = self._own[0] * self._factor(done)
        if isinstance(self.optimizer, RuleOptimizer):
            self.optimizer.param_groups[0].update(lr=rate, clock=done + 1)
            return self.optimizer.effective_rate()
        return rate

    def _factor(self, done: int) -> float:
        return float(self.settings.scheduler.factor(done, self.schedule_state))

    def state(self) -> dict[str, Any]:
        """What is neither a slot nor a schedule's: numbers that a given optimizer keeps in its groups."""
        groups = [plain_group(group) for group in self.optimizer.param_groups]
        return {
            "own": self._own,
            "groups": [{key: value for key, value in group.items() if _is_plain(value)} for group in groups],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` returned; the configured hyperparameters of a rule stay."""
        if isinstance(self.settings.optimizer, Rule):
            return
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
        reason = "it evaluates the loss several times a step, and compares values that differ by noise alone"
        raise ConfigError([Problem("optimizer", f"{type(optimizer).__name__} is refused: {reason}; try adam")])
    return optimizer
