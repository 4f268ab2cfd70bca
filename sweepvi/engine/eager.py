"""The eager engine: Pyro's own mechanics, with one optimizer over all parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.environment import device_of, dtype_of
from sweepvi.errors import CheckpointError
from sweepvi.estimators.trace_graph import BASELINE_STATE_PREFIX
from sweepvi.optim import Rule, RuleOptimizer
from sweepvi.optim.torch_face import optimizer_from
from sweepvi.programs import FittedState, fitted_state, reachable_modules
from sweepvi.random_state import get_random_state, set_random_state
from sweepvi.recipe import Recipe


class NonFiniteError(Exception):
    """A step found a NaN or an infinity, and changed no parameter."""

    def __init__(self, loss: float, where: str) -> None:
        self.loss = loss
        super().__init__(where)


class EagerEngine:
    """A fit in progress; use it inside :func:`sweepvi.engine.environment.environment`.

    Creates the guide and runs both programs once, which creates their parameters. An exception there is the model's
    own, and is passed on.
    """

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.settings
        self.recipe = recipe
        self.problem = recipe.problem.to(dtype_of(settings), device_of(settings))
        self.guide = recipe.guide.build(self.problem.model)
        self.programs = {"model": self.problem.model, "guide": self.guide}
        self.elbo = recipe.estimator.build()
        self.step_count = 0
        self._restoring = _Restoring({}, {})
        self._waiting_slots: dict[str, dict[str, Any]] = {}
        self._live: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._group_of: dict[str, int] = {}
        self._rates: list[float] = []
        with torch.no_grad():
            self.elbo.loss(self.problem.model, self.guide, *self.problem.args, **self.problem.kwargs)
        self._adopt()
        # So that a step's draws do not depend on how many it took to get here.
        pyro.set_rng_seed(settings.seed)

    def step(self) -> float:
        """One update; returns the estimate of -ELBO before it.

        Raises ``NonFiniteError``, with no parameter changed, when the loss, a gradient or the model's own arithmetic
        is not finite. Estimator state is put back too: one NaN would stay in an average for ever.
        """
        averages = self._estimator_state()
        try:
            loss = self._loss_and_gradients()
            gradients = {name: p.grad for name, p in self._live.items() if p.grad is not None}
            self._demand_finite(loss, gradients)
        except NonFiniteError:
            self._clear_gradients()
            for name, value in averages.items():
                pyro.get_param_store()[name] = value
            raise
        self._set_rates()
        assert self._optimizer is not None
        self._optimizer.step()
        self._clear_gradients()
        self.step_count += 1
        return loss

    def skip(self) -> None:
        """Count a step that changed nothing."""
        self.step_count += 1

    @property
    def has_parameters(self) -> bool:
        """Whether there is anything to optimize."""
        return self._optimizer is not None

    def rate(self) -> float:
        """The first group's effective step size at the next update: base rate × schedule × the rule's own decay."""
        return self._rates[0] * self._factor() * self._own_decay()

    def fitted_state(self) -> FittedState:
        """A copy of everything that model and guide need to run as fitted."""
        state = fitted_state(self.programs)
        averages = self._estimator_state()
        keep = {name: value for name, value in state.params.items() if name not in averages}
        return FittedState(keep, {name: state.constraints[name] for name in keep}, state.modules)

    def snapshot(self) -> Snapshot:
        """All that the next step depends on."""
        state = fitted_state(self.programs)
        snapshot = Snapshot()
        constraints = {name: repr(c) for name, c in state.constraints.items()}
        waiting = self._restoring
        snapshot.put("param", waiting.values | state.params, waiting.constraints | constraints)
        for path, tensors in state.modules.items():
            snapshot.put(f"module/{path}", tensors)
        slots, scalars = self._optimizer_state()
        snapshot.put("slot", slots, scalars)
        snapshot.put("random", *get_random_state())
        snapshot.meta["step"] = self.step_count
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same recipe; ``CheckpointError`` if it does not fit."""
        params, constraints = snapshot.get("param")
        for path, module in reachable_modules(self.programs).items():
            self._restore_module(module, snapshot.get(f"module/{path}")[0])
        self._restoring = _Restoring(params, constraints)
        for name in list(pyro.get_param_store().keys()):
            self._restoring.restore(name)
        self._adopt()
        self._load_optimizer_state(*snapshot.get("slot"))
        self.step_count = snapshot.meta["step"]
        set_random_state(*snapshot.get("random"))

    def _restore_module(self, module: torch.nn.Module, values: dict[str, Tensor]) -> None:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name in values:
                tensor.data.copy_(values[name])

    def _loss_and_gradients(self) -> float:
        arguments = (self.problem.model, self.guide, *self.problem.args)
        try:
            with self._restoring if self._restoring.values else nullcontext():
                loss = self.elbo.loss_and_grads(*arguments, **self.problem.kwargs)
        except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:
            # The model ran once already, so what fails now is its arithmetic: a scale that became NaN, a matrix
            # that is not positive definite.
            text = " ".join(str(error).split())
            raise NonFiniteError(math.nan, f"{self._parameters_not_finite()}: {text}") from error
        self._adopt()
        return float(loss)

    def _demand_finite(self, loss: float, gradients: dict[str, Tensor]) -> None:
        if gradients:
            largest = torch.stack(torch._foreach_norm(list(gradients.values()), math.inf))
            if math.isfinite(loss) and bool(torch.isfinite(largest).all()):
                return
        elif math.isfinite(loss):
            return
        names = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
        if not math.isfinite(loss):
            raise NonFiniteError(loss, f"loss is {loss}; {_gradients_of(names) or self._parameters_not_finite()}")
        raise NonFiniteError(loss, _gradients_of(names))

    def _parameters_not_finite(self) -> str:
        names = [name for name, p in self._live.items() if not bool(torch.isfinite(p).all())]
        return f"non-finite parameter: {', '.join(names)}" if names else "all parameters are finite"

    def _clear_gradients(self) -> None:
        for param in self._live.values():
            param.grad = None

    def _estimator_state(self) -> dict[str, Tensor]:
        store = pyro.get_param_store()
        names = [name for name in store.keys() if name.startswith(BASELINE_STATE_PREFIX)]
        return {name: store[name].detach() for name in names}

    def _adopt(self) -> None:
        """Take parameters into the optimizer that are new, or whose tensor the model has replaced."""
        params = pyro.get_param_store()._params
        if len(params) == len(self._live) and all(params.get(n) is p for n, p in self._live.items()):
            return
        fresh: dict[str, Tensor] = {}
        for name, tensor in params.items():
            if name.startswith(BASELINE_STATE_PREFIX) or tensor is self._live.get(name):
                continue
            if name in self._live and isinstance(self._optimizer, RuleOptimizer):
                self._optimizer.rebind(self._live[name], tensor)
            else:
                fresh[name] = tensor
            self._live[name] = tensor
        if fresh:
            self._add(fresh)
            self._take_slots()

    def _add(self, fresh: dict[str, Tensor]) -> None:
        labels = self.recipe.partition.assign(fresh)
        groups: dict[str, list[Tensor]] = {}
        for name, label in labels.items():
            groups.setdefault(label, []).append(fresh[name])
        if self._optimizer is None:
            self._optimizer = _make_optimizer(self.recipe, [{"params": p} for p in groups.values()])
            self._group_of = {label: index for index, label in enumerate(groups)}
            self._rates = [float(group.get("lr", 1.0)) for group in self._optimizer.param_groups]
            return
        for label, tensors in groups.items():
            if label in self._group_of:
                self._optimizer.param_groups[self._group_of[label]]["params"].extend(tensors)
            else:
                self._group_of[label] = len(self._rates)
                self._optimizer.add_param_group({"params": tensors})
                self._rates.append(float(self._optimizer.param_groups[-1].get("lr", 1.0)))

    def _factor(self) -> float:
        return float(self.recipe.scheduler.factor(self.step_count))

    def _own_decay(self) -> float:
        rule = self.recipe.optimizer
        return float(rule.decay(rule.hyper(), self.step_count + 1)) if isinstance(rule, Rule) else 1.0

    def _set_rates(self) -> None:
        assert self._optimizer is not None
        factor = self._factor()
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            if "lr" in group:
                group["lr"] = rate * factor

    def _optimizer_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert self._optimizer is not None
        live = {name: self._optimizer.state.get(param, {}) for name, param in self._live.items()}
        entries = {f"{key}/{n}": v for n, slots in (self._waiting_slots | live).items() for key, v in slots.items()}
        tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
        scalars = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        return tensors, {"state": scalars, "clocks": [group.get("clock") for group in self._optimizer.param_groups]}

    def _load_optimizer_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        assert self._optimizer is not None
        for key, value in {**tensors, **meta["state"]}.items():
            slot, _, name = key.partition("/")
            self._waiting_slots.setdefault(name, {})[slot] = value
        for group, clock in zip(self._optimizer.param_groups, meta["clocks"], strict=True):
            if clock is not None:
                group["clock"] = clock
        self._take_slots()

    def _take_slots(self) -> None:
        """Give parameters that exist now the optimizer state that a checkpoint holds for them."""
        assert self._optimizer is not None
        for name in self._waiting_slots.keys() & self._live.keys():
            param = self._live[name]
            for slot, value in self._waiting_slots.pop(name).items():
                shaped = isinstance(value, Tensor) and value.shape == param.shape
                self._optimizer.state[param][slot] = value.to(param.device) if shaped else value


def _make_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if isinstance(recipe.optimizer, Rule):
        return optimizer_from(recipe.optimizer, groups)
    return recipe.optimizer(groups)


def _gradients_of(names: Iterable[str]) -> str:
    text = ", ".join(names)
    return f"non-finite gradient of {text}" if text else ""


class _Restoring(Messenger):
    """Gives parameters their values of a checkpoint, those too that the model creates only later."""

    def __init__(self, values: dict[str, Tensor], constraints: dict[str, str]) -> None:
        super().__init__()
        self.values = dict(values)
        self.constraints = constraints

    def restore(self, name: str) -> None:
        """Copy the value of a parameter that the store has."""
        if name not in self.values:
            return
        store = pyro.get_param_store()
        value, param = self.values.pop(name), store._params[name]
        if value.shape != param.shape or value.dtype != param.dtype:
            raise CheckpointError(
                f"parameter {name!r} is {tuple(param.shape)} {param.dtype} here, "
                f"{tuple(value.shape)} {value.dtype} in the checkpoint"
            )
        if repr(store._constraints[name]) != self.constraints[name]:
            raise CheckpointError(
                f"parameter {name!r} is constrained to {store._constraints[name]!r} here, "
                f"to {self.constraints[name]} in the checkpoint"
            )
        param.data.copy_(value)

    def _pyro_param(self, msg: Any) -> None:
        name, store = msg["name"], pyro.get_param_store()
        if name in self.values:
            if name not in store:
                store.setdefault(name, msg["args"][1], msg["kwargs"]["constraint"])
            self.restore(name)

