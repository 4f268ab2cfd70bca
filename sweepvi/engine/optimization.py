"""The parameters of a fit and the one optimizer over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweepvi.errors import CheckpointError
from sweepvi.estimators.trace_graph import BASELINE_STATE_PREFIX
from sweepvi.optim import Rule, RuleOptimizer
from sweepvi.optim.torch_face import optimizer_from
from sweepvi.private import unconstrained_params
from sweepvi.recipe import Recipe


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
        self._rates: list[float] = []
        self._waiting: dict[str, dict[str, Any]] = {}

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

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last evaluation, by name of the parameter, where there is one."""
        return {name: param.grad for name, param in self.live.items() if param.grad is not None}

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for param in self.live.values():
            param.grad = None

    def step(self, done: int) -> None:
        """Update the parameters, after ``done`` updates."""
        factor = float(self.recipe.scheduler.factor(done))
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if "lr" in group:
                group["lr"] = rate * factor
        self.optimizer.step()

    def rate(self, done: int) -> float:
        """The first group's effective step size after ``done`` updates: base rate × schedule × the rule's decay."""
        rule = self.recipe.optimizer
        decay = float(rule.decay(rule.hyper(), done + 1)) if isinstance(rule, Rule) else 1.0
        return self._rates[0] * float(self.recipe.scheduler.factor(done)) * decay

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
        return tensors, {"state": scalars, "clocks": [group.get("clock") for group in self.optimizer.param_groups]}

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Load what :meth:`state` returned; slots of parameters that do not exist yet wait for them."""
        for key, value in {**tensors, **meta["state"]}.items():
            slot, _, name = key.partition("/")
            self._waiting.setdefault(name, {})[slot] = value
        if len(meta["clocks"]) != len(self.optimizer.param_groups):
            raise CheckpointError("the checkpoint has another number of parameter groups")
        for group, clock in zip(self.optimizer.param_groups, meta["clocks"], strict=True):
            if clock is not None:
                group["clock"] = clock
        self._take_waiting()

    def _take_waiting(self) -> None:
        for name in self._waiting.keys() & self.live.keys():
            param = self.live[name]
            for slot, value in self._waiting.pop(name).items():
                shaped = isinstance(value, Tensor) and value.shape == param.shape
                self.optimizer.state[param][slot] = value.to(param.device) if shaped else value

    def _add(self, fresh: dict[str, Tensor]) -> None:
        groups: dict[str, list[Tensor]] = {}
        for name, label in self.recipe.partition.assign(fresh).items():
            groups.setdefault(label, []).append(fresh[name])
        for label, tensors in groups.items():
            if label in self._group_of:
                self.optimizer.param_groups[self._group_of[label]]["params"].extend(tensors)
            else:
                self._group_of[label] = len(self._rates)
                self._add_group(tensors)

    def _add_group(self, tensors: list[Tensor]) -> None:
        group = {"params": tensors}
        if self._optimizer is not None:
            self._optimizer.add_param_group(group)
        elif isinstance(self.recipe.optimizer, Rule):
            self._optimizer = optimizer_from(self.recipe.optimizer, [group])
        else:
            self._optimizer = self.recipe.optimizer([group])
        self._rates.append(float(self._optimizer.param_groups[-1].get("lr", 1.0)))
