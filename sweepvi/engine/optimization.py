"""The parameters of a fit, and the optimizers of their groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sweepvi.engine.group_optimizer import GroupOptimizer
from sweepvi.errors import CheckpointError, Problem, listed, raise_if
from sweepvi.estimators.trace_graph import BASELINE_STATE_PREFIX
from sweepvi.optim import Rule, RuleOptimizer
from sweepvi.optim.snapshot import demand_fit, load_slots, snapshot
from sweepvi.partition.kinds import kind_of, network_weights
from sweepvi.private import constraint_of, unconstrained_params
from sweepvi.recipe import Recipe


class Optimization:
    """Follows Pyro's parameter store: every parameter in it is optimized, from when it appears, unless it is frozen.

    Running averages that an estimator keeps in the store are not parameters.
    """

    def __init__(self, recipe: Recipe, modules: Mapping[str, nn.Module]) -> None:
        self.recipe = recipe
        self.live: dict[str, Tensor] = {}
        """Unconstrained parameters by name: the store's own tensors."""
        self._modules = modules
        self._seen: dict[str, Tensor] = {}
        self._label_of: dict[str, str] = {}
        self._groups: dict[str, GroupOptimizer] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._waiting_groups: dict[str, dict[str, Any]] = {}
        self.adopt()
        self._demand_that_settings_fit()

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
            if name not in self.live:
                fresh[name] = tensor
            elif group := self._groups.get(self._label_of[name]):
                group.replace(name, tensor)
            self.live[name] = tensor
        if fresh:
            self._add(fresh)
            self._take_waiting()

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for param in self.live.values():
            param.grad = None

    def step(self, done: int, loss: float) -> dict[str, float]:
        """Update the parameters, after ``done`` steps; ``loss`` is that of this one. Returns the rates."""
        norm = self._total_norm()
        rates = {label: group.step(done, norm) for label, group in self._groups.items()}
        for group in self._groups.values():
            group.observe(done, loss)
        return rates

    def rates(self, done: int) -> dict[str, float]:
        """Each group's effective step size after ``done`` steps; NaN where its optimizer has none."""
        return {label: group.rate(done) for label, group in self._groups.items()}

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside, parameters are the optimizers' results, which for those that average are averages."""
        with ExitStack() as stack:
            for group in self._groups.values():
                if isinstance(group.optimizer, RuleOptimizer):
                    stack.enter_context(group.optimizer.evaluated())
            yield

    def results(self) -> dict[str, Tensor]:
        """The optimizers' results for the parameters that do not stand at them, by name."""
        before = {name: param.detach().clone() for name, param in self.live.items()}
        with self.evaluated():
            return {
                name: param.detach().clone()
                for name, param in self.live.items()
                if not torch.equal(param, before[name])
            }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors as ``slot/parameter``, schedules' as ``schedule/label``; and what of the state is no tensor."""
        slots = dict(self._waiting)
        for group in self._groups.values():
            slots |= snapshot(group.optimizer, group.params).slots
        entries = {f"{slot}/{name}": value for name, values in slots.items() for slot, value in values.items()}
        tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
        scalars = {key: value for key, value in entries.items() if not isinstance(value, Tensor)}
        schedules = {
            f"{label}/{name}": value
            for label, group in self._groups.items()
            for name, value in group.schedule_state.items()
        }
        meta = {
            "scalars": scalars,
            "shapes": {name: list(param.shape) for name, param in self.live.items()},
            "labels": self._label_of,
            "groups": self._waiting_groups | {label: group.state() for label, group in self._groups.items()},
            "schedules": list(schedules),
        }
        return tensors | {f"schedule/{key}": value for key, value in schedules.items()}, meta

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Load what :meth:`state` returned; what belongs to parameters that do not exist yet waits for them.

        Raises ``CheckpointError`` if parameters that exist are not in it, or have another shape or group there.
        """
        shapes = {name: tuple(param.shape) for name, param in self.live.items()}
        demand_fit({name: tuple(meta["shapes"][name]) for name in meta["shapes"].keys() & shapes.keys()}, shapes)
        moved = [name for name, label in self._label_of.items() if meta["labels"][name] != label]
        if moved:
            raise CheckpointError(f"parameters in another group than in the checkpoint: {listed(moved)}")
        for key, value in {**tensors, **meta["scalars"]}.items():
            slot, _, name = key.partition("/")
            if slot == "schedule":
                label, _, entry = name.partition("/")
                self._waiting_groups.setdefault(label, {}).setdefault("schedule", {})[entry] = value
            else:
                self._waiting.setdefault(name, {})[slot] = value
        for label, state in meta["groups"].items():
            self._waiting_groups.setdefault(label, {}).update(state)
        for name, param in self.live.items():
            if group := self._groups.get(self._label_of[name]):
                load_slots(group.optimizer, param, {})
        self._take_waiting()

    def _take_waiting(self) -> None:
        for name in self._waiting.keys() & self.live.keys():
            load_slots(self._groups[self._label_of[name]].optimizer, self.live[name], self._waiting.pop(name))
        for label in self._waiting_groups.keys() & self._groups.keys():
            state = self._waiting_groups.pop(label)
            self._groups[label].schedule_state = state.pop("schedule", self._groups[label].schedule_state)
            self._groups[label].load_state(state)

    def _add(self, fresh: Mapping[str, Tensor]) -> None:
        by_label: dict[str, dict[str, Tensor]] = {}
        for name, label in self.recipe.partition.assign(self._kinds(fresh)).items():
            self._label_of[name] = label
            by_label.setdefault(label, {})[name] = fresh[name]
        for label, settings in self.recipe.groups.items():
            params = by_label.get(label)
            if params is None or settings.frozen:
                continue
            if label in self._groups:
                self._groups[label].extend(params)
            else:
                self._groups[label] = GroupOptimizer(settings, params)

    def _kinds(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        weights = network_weights(self._modules.values())
        return {name: kind_of(name, constraint_of(name), id(param) in weights) for name, param in params.items()}

    def _demand_that_settings_fit(self) -> None:
        """Raise ``ConfigError`` for groups without parameters, and for settings that name parameters there are not."""
        self.recipe.partition.demand_filled(self._label_of, self._kinds(self.live))
        shapes = {name: param.shape for name, param in self.live.items()}
        rules = {"optimizer": self.recipe.optimizer} | {
            f"partition.{place.key}.optimizer": self.recipe.groups[label].optimizer
            for label, place in self.recipe.partition.places().items()
            if place.group.optimizer
        }
        misfits = [
            Problem(f"{where}.{key}", message)
            for where, rule in rules.items()
            if isinstance(rule, Rule)
            for key, message in rule.misfits(shapes).items()
        ]
        raise_if(misfits)

    def _total_norm(self) -> Tensor | None:
        """Norm of the gradients of all groups under one bound on it, shape [1]; None if there are not several."""
        sharing = [group for group in self._groups.values() if group.clips_global_norm]
        if len(sharing) < 2:
            return None
        grads = [param.grad for group in sharing for param in group.params.values() if param.grad is not None]
        norms = [torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in grads]
        return torch.linalg.vector_norm(torch.stack(norms)).reshape(1) if norms else None
