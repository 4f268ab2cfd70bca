"""The parameters of a fit, and the optimizers of their groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sweepvi.engine.group_optimizer import GroupOptimizer, group_optimizer
from sweepvi.engine.waiting import Waiting
from sweepvi.errors import CheckpointError, Problem, listed, raise_if, unique
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX
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
        self.rate = 1.0
        """Factor on all step sizes, beside the schedules'."""
        self.instead: Mapping[str, Tensor] = {}
        """Results that go before the optimizers' own, by name."""
        self._modules = modules
        self._seen: dict[str, Tensor] = {}
        self._label_of: dict[str, str] = {}
        self._groups: dict[str, GroupOptimizer] = {}
        self._waiting = Waiting()
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

    def groups(self) -> dict[str, list[str]]:
        """Label of each group that is optimized → its parameters, in the order in which they appeared."""
        return {label: list(group.params) for label, group in self._groups.items()}

    def clear_gradients(self) -> None:
        """Forget the gradients."""
        for param in self.live.values():
            param.grad = None

    def step(self, done: int, loss: float) -> dict[str, float]:
        """Update the parameters, after ``done`` steps; ``loss`` is that of this one. Returns the rates."""
        norm = self._total_norm()
        for group in self._groups.values():
            group.rate_factor = self.rate
        rates = {label: group.step(done, norm) for label, group in self._groups.items()}
        for group in self._groups.values():
            group.observe(done, loss)
        return rates

    def skip(self, done: int) -> None:
        """Let the schedules know that the step after ``done`` steps was left out."""
        for group in self._groups.values():
            group.observe(done, math.nan)

    def rates(self, done: int) -> dict[str, float]:
        """Each group's effective step size after ``done`` steps; NaN where its optimizer has none."""
        return {label: group.rate(done) for label, group in self._groups.items()}

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Inside, parameters are the optimizers' results, which for those that average are averages."""
        with ExitStack() as stack:
            for group in self._groups.values():
                stack.enter_context(group.evaluated())
            stack.enter_context(self._moved_to(self.instead))
            yield

    @contextmanager
    def _moved_to(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, parameters of these names have these values."""
        before = {name: self.live[name].detach().clone() for name in values}
        try:
            self._move(values)
            yield
        finally:
            self._move(before)

    def _move(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.live[name].copy_(value)

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
        """Everything that a continuation needs, copied: tensors by name, and what is no tensor."""
        live = Waiting(
            shapes={name: tuple(param.shape) for name, param in self.live.items()},
            labels=self._label_of,
            schedules={label: group.schedule_state for label, group in self._groups.items()},
            groups={label: group.state() for label, group in self._groups.items()},
        )
        for group in self._groups.values():
            live.slots |= snapshot(group.optimizer, group.params).slots
        return self._waiting.over(live).packed()

    def load_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Load what :meth:`state` returned; what belongs to parameters that do not exist yet waits for them.

        Raises ``CheckpointError`` if parameters that exist are not in it, or have another shape or group there.
        """
        waiting = Waiting.unpacked(tensors, meta)
        shapes = {name: tuple(param.shape) for name, param in self.live.items()}
        demand_fit({name: shape for name, shape in waiting.shapes.items() if name in shapes}, shapes)
        moved = [name for name, label in self._label_of.items() if waiting.labels[name] != label]
        if moved:
            raise CheckpointError(f"parameters in another group than in the checkpoint: {listed(moved)}")
        for group in self._groups.values():
            for param in group.params.values():
                load_slots(group.optimizer, param, {})
        self._waiting = waiting
        self._take_waiting()

    def _take_waiting(self) -> None:
        waiting = self._waiting
        for label, group in self._groups.items():
            for name in group.params.keys() & waiting.slots.keys():
                load_slots(group.optimizer, group.params[name], waiting.slots.pop(name))
            group.schedule_state = waiting.schedules.pop(label, group.schedule_state)
            if label in waiting.groups:
                group.load_state(waiting.groups.pop(label))

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
                self._groups[label] = group_optimizer(settings, params)

    def _kinds(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        weights = network_weights(self._modules.values())
        return {name: kind_of(name, constraint_of(name), id(param) in weights) for name, param in params.items()}

    def _demand_that_settings_fit(self) -> None:
        """Raise ``ConfigError`` for groups without parameters, and for settings that name parameters there are not."""
        self.recipe.partition.demand_filled(self._label_of, self._kinds(self.live))
        raise_if(unique(problem for label in self._groups for problem in self._misfits(label)))

    def _misfits(self, label: str) -> list[Problem]:
        """Settings of a group's own that name parameters there are not in it; of the fit's, in all that share them."""
        place, group = self.recipe.partition.places()[label], self._groups[label]
        own = place.group.optimizer
        others = [
            g for name, g in self._groups.items() if "name" not in self.recipe.partition.places()[name].group.optimizer
        ]
        problems = []
        for where, groups, wanted in (
            (f"partition.{place.key}.optimizer", [group], lambda key: key in own or "name" in own),
            ("optimizer", others, lambda key: key not in own and "name" not in own),
        ):
            shapes = {name: param.shape for one in groups for name, param in one.params.items()}
            found = group.misfits(shapes).items()
            problems += [Problem(f"{where}.{k}", said) for k, said in found if wanted(k.partition(".")[0])]
        return problems

    def _total_norm(self) -> Tensor | None:
        """Norm of the gradients of all groups under one bound on it, shape [1]; None if there are not several."""
        sharing = [group for group in self._groups.values() if group.clips_global_norm]
        if len(sharing) < 2:
            return None
        grads = [param.grad for group in sharing for param in group.params.values() if param.grad is not None]
        norms = [torch.linalg.vector_norm(grad, dtype=torch.float64) for grad in grads]
        return torch.linalg.vector_norm(torch.stack(norms)).reshape(1) if norms else None
