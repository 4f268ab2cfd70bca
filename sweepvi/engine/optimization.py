"""The parameters of a fit and the one optimizer over them."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import ConfigError, Problem
from sweepvi.estimators.trace_graph import BASELINE_STATE_PREFIX
from sweepvi.loading import described
from sweepvi.optim import Rule, RuleOptimizer
from sweepvi.optim.torch_face import optimizer_from
from sweepvi.private import unconstrained_params
from sweepvi.recipe import OptimizerFactory, Recipe


class Optimization:
    """Follows Pyro's parameter store: every parameter in it is optimized, from when it appears.

    Running averages that an estimator keeps in the store are not parameters.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.live: dict[str, Tensor] = {}
        """Unconstrained parameters by name: the store's own tensors."""
        self._seen: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._group_of: dict[str, int] = {}
        self._bases: list[float] = []
        self._waiting: dict[str, dict[str, Any]] = {}
        self._waiting_groups: dict[str, dict[str, Any]] = {}

    def adopt(self) -> None:
        """Take in parameters that are new, or whose tensor the model has replaced."""
        params = unconstrained_params()
        if len(params) == len(self._seen) and all(params.get(name) is tensor for name, tensor in self._seen.items()):
            return
        self._seen = dict(params)
        # A network that is part of another is registered under two names; it is one parameter, under its first.
        known = {id(tensor) for tensor in self.live.values()}
        fresh: dict[str, Tensor] = {}
        for name, tensor in params.items():
            if name.startswith(BASELINE_STATE_PREFIX) or id(tensor) in known:
                continue
            known.add(id(tensor))
            if name in self.live and isinstance(self._optimizer, RuleOptimizer):
                self._optimizer.rebind(self.live[name], tensor)
            else:
                fresh[name] = tensor
            self.live[name] = tensor
        if fresh:
            self._add(fresh)
            self._take_waiting()

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for param in self.live.values():
            param.grad = None

    def step(self, done: int) -> None:
        """Update the parameters, after ``done`` steps."""
        for group, rate in zip(self.optimizer.param_groups, self._rates(done), strict=True):
            if "lr" in group:
                group["lr"] = rate
            if isinstance(self.optimizer, RuleOptimizer):
                # Steps left out count: schedules and the rule's own decay run by one clock.
                group["clock"] = done
        self.optimizer.step()

    def rate(self, done: int) -> float:
        """The first group's effective step size after ``done`` steps; NaN if its optimizer has none."""
        rule, rate = self.recipe.optimizer, self._rates(done)[0]
        return rate * float(rule.decay(rule.hyper(), done + 1)) if isinstance(rule, Rule) else rate

    def _rates(self, done: int) -> list[float]:
        """Each group's step size: the configured one times the schedule's factor.

        An optimizer that was given may change its own step size; there, the schedule's change of factor is applied.
        """
        factor = self.recipe.scheduler.factor
        if isinstance(self.recipe.optimizer, Rule):
            return [base * float(factor(done)) for base in self._bases]
        change = float(factor(done)) / (float(factor(done - 1)) if done else 1.0)
        return [float(group.get("lr", math.nan)) * change for group in self.optimizer.param_groups]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer; it exists when there are parameters."""
        assert self._optimizer is not None
        return self._optimizer

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Slots as ``slot/parameter`` → tensor, and what of the state is no tensor."""
        slots = self._waiting | {name: self.optimizer.state.get(param, {}) for name, param in self.live.items()}
        entries = {f"{slot}/{name}": value for name, values in slots.items() for slot, value in values.items()}
        tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
        scalars = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        groups = {label: self.optimizer.param_groups[index] for label, index in self._group_of.items()}
        plain = {label: _plain(group) for label, group in groups.items()}
        return tensors, {"state": scalars, "groups": self._waiting_groups | plain}

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Load what :meth:`state` returned; what belongs to parameters that do not exist yet waits for them."""
        for key, value in {**tensors, **meta["state"]}.items():
            slot, _, name = key.partition("/")
            self._waiting.setdefault(name, {})[slot] = value
        self._waiting_groups = dict(meta["groups"])
        self._take_waiting()

    def _take_waiting(self) -> None:
        for name in self._waiting.keys() & self.live.keys():
            param = self.live[name]
            for slot, value in self._waiting.pop(name).items():
                shaped = isinstance(value, Tensor) and value.shape == param.shape
                self.optimizer.state[param][slot] = value.to(param.device) if shaped else value
        if isinstance(self.recipe.optimizer, Rule):
            return
        for label in self._waiting_groups.keys() & self._group_of.keys():
            self.optimizer.param_groups[self._group_of[label]].update(self._waiting_groups.pop(label))

    def _add(self, fresh: dict[str, Tensor]) -> None:
        groups: dict[str, list[Tensor]] = {}
        for name, label in self.recipe.partition.assign(fresh).items():
            groups.setdefault(label, []).append(fresh[name])
        for label, tensors in groups.items():
            if label in self._group_of:
                self.optimizer.param_groups[self._group_of[label]]["params"].extend(tensors)
            else:
                self._group_of[label] = len(self._group_of)
                self._add_group(tensors)

    def _add_group(self, tensors: list[Tensor]) -> None:
        group = {"params": tensors}
        if self._optimizer is not None:
            self._optimizer.add_param_group(group)
        elif isinstance(self.recipe.optimizer, Rule):
            self._optimizer = optimizer_from(self.recipe.optimizer, [group])
        else:
            self._optimizer = _given(self.recipe.optimizer, group)
        self._bases.append(float(self._optimizer.param_groups[-1].get("lr", math.nan)))


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    """What of a parameter group is plain data: its hyperparameters, and numbers that the optimizer keeps there."""
    return {key: value for key, value in group.items() if isinstance(value, bool | int | float | str)}


def _given(factory: OptimizerFactory, group: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimizer that a function of the user's makes; ``ConfigError`` if it makes none that can be stepped."""
    try:
        optimizer = factory([group])
    except Exception as error:
        raise ConfigError([Problem("optimizer", f"making it fails: {described(error)}")]) from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            [Problem("optimizer", f"must make a torch.optim.Optimizer, made a {type(optimizer).__name__}")]
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        reason = "it evaluates the loss several times a step, and compares values that differ by noise alone"
        raise ConfigError([Problem("optimizer", f"{type(optimizer).__name__} is refused: {reason}; try adam")])
    return optimizer
