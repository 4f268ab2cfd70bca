"""The eager engine: Pyro's own mechanics, with one optimizer over all parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.environment import device_of, dtype_of
from sweepvi.engine.numerical import MAYBE_NUMERICAL, is_numerical
from sweepvi.engine.optimization import Optimization
from sweepvi.engine.particles import at_most
from sweepvi.engine.restoring import Restoring
from sweepvi.engine.score import traces
from sweepvi.errors import CheckpointError, raise_if
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX, OWN_PARAMETERS
from sweepvi.estimators.sites import latent_sites
from sweepvi.geometry import Place
from sweepvi.loading import message_of
from sweepvi.private import all_finite, unconstrained_params
from sweepvi.programs import Fitted, FittedState, Isolation, fitted_state, reachable_modules
from sweepvi.random_state import get_random_state, raw_random_state, set_random_state, set_raw_random_state
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

    Args:
        recipe: what to fit.
        isolation: that of the environment.
        place: the coordinates to fit it in; None are the model's own.

    """

    def __init__(self, recipe: Recipe, isolation: Isolation, place: Place | None = None) -> None:
        settings = recipe.settings
        self.recipe, self.place = recipe, place
        problem = recipe.problem.to(dtype_of(settings), device_of(settings))
        model = recipe.estimator.configured(problem.model)
        if place is not None:
            model = place.put(model, dtype_of(settings), device_of(settings))
        self.problem = replace(problem, model=model)
        own = recipe.guide if place is None else recipe.guide.standardized()
        guide = own.build(recipe.estimator.for_guide(model))
        self.programs = {"model": self.problem.model, "guide": guide}
        self.step_count = 0
        self.last_rates: dict[str, float] = {}
        """Each parameter group's effective step size at the last step, taken or failed."""
        self.at_boundary = True
        """Whether the state is that between two steps: false if an interrupt has cut an update in half."""
        raise_if(recipe.estimator.misfits(latent_sites(*traces(self.programs, self.problem))))
        self.elbo = recipe.estimator.build()
        self._restoring = Restoring({}, {})
        self._plates = self._minibatches()
        with torch.no_grad(), self._plates, at_most(1, self.elbo, recipe.estimator):
            self.elbo.loss(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
        # Parameters of networks that no search finds are the user's all the same.
        isolation.protect(unconstrained_params().values())
        self._reach = {**self.programs, "args": self.problem.args, "kwargs": self.problem.kwargs}
        self.modules = reachable_modules(self._reach)
        self._random_after_failure = raw_random_state()
        self.optimization = Optimization(recipe, self.modules)
        # So that a step's draws do not depend on how many it took to get here.
        pyro.set_rng_seed(settings.seed)

    def step(self) -> float:
        """One update; returns the estimate of -ELBO before it.

        Raises ``NonFiniteError`` when the loss, a gradient or the model's own arithmetic is not finite. After that,
        as after any exception of the model, parameters, estimator state and random state are as before the step.
        """
        try:
            loss = self._evaluate()
        except BaseException:
            self.last_rates = self.optimization.rates(self.step_count)
            raise
        self.optimization.adopt()
        self.at_boundary = False
        self.last_rates = self.optimization.step(self.step_count, loss)
        self.optimization.clear_gradients()
        self.step_count += 1
        self.at_boundary = True
        return loss

    def gradients(self) -> tuple[float, dict[str, Tensor]]:
        """What the next step would follow: its estimate of -ELBO, and each parameter's gradient, unconstrained.

        No parameter moves; random state and estimator state do, so that the next call is another draw. Parameters on
        which nothing depends are left out. Raises as :meth:`step` does, and the next call draws on after that too.
        """
        try:
            loss = self._evaluate()
        except BaseException:
            set_raw_random_state(self._random_after_failure)
            raise
        self.optimization.adopt()
        found = {name: param.grad for name, param in self.optimization.live.items() if param.grad is not None}
        self.optimization.clear_gradients()
        return loss, found

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Inside, gradients may be taken, and parameters moved; afterwards all is as before."""
        before, values = Before(self.modules), {name: p.detach().clone() for name, p in self.optimization.live.items()}
        try:
            yield
        finally:
            self.move_to(values)
            before.restore()

    def move_to(self, values: Mapping[str, Tensor]) -> None:
        """Give parameters, unconstrained, other values."""
        with torch.no_grad():
            for name, value in values.items():
                self.optimization.live[name].copy_(value)

    @property
    def place_notes(self) -> tuple[str, ...]:
        """What a reader must know of the coordinates."""
        return self.place.notes if self.place is not None else ()

    @property
    def estimator_numbers(self) -> dict[str, float]:
        """The numbers in the estimator's object that may be others in another lane, by where they are."""
        estimator = self.recipe.estimator
        return {place: float(getattr(estimator, key)) for key, place in estimator.varies.items()}

    @property
    def baseline_networks(self) -> Mapping[str, torch.nn.Module]:
        """The networks that the estimator has as baselines."""
        return getattr(getattr(self.elbo, "baselines", None), "networks", {})

    def skip(self) -> None:
        """Count the step that has just failed; the next one draws on, or it would fail in the same way."""
        set_raw_random_state(self._random_after_failure)
        self.optimization.skip(self.step_count)
        self.step_count += 1

    def demand_finite_parameters(self) -> None:
        """Raise ``NonFiniteError`` if the last update has left a parameter that is not finite."""
        if not all_finite(list(self.optimization.live.values())):
            raise NonFiniteError(math.nan, self._at_which_parameters())

    def fitted(self) -> Fitted:
        """Model and guide with a copy of everything that they need to run as fitted."""
        with self.optimization.evaluated():
            state = fitted_state(self.modules)
        keep = [name for name in state.params if not name.startswith((BASELINE_STATE_PREFIX, OWN_PARAMETERS))]
        params, constraints = ({name: table[name] for name in keep} for table in (state.params, state.constraints))
        late = partial(Restoring, dict(self._restoring.values), self._restoring.constraints)
        fitted = FittedState(params, constraints, state.modules)
        return Fitted(
            self._reach, fitted, dtype_of(self.recipe.settings), late if self._restoring.values else nullcontext
        )

    def state_snapshot(self) -> Snapshot:
        """Parameters and networks, as :meth:`restore_result` reads them; the result is to be added."""
        state, waiting = fitted_state(self.modules), self._restoring
        constraints = {name: repr(constraint) for name, constraint in state.constraints.items()}
        snapshot = Snapshot()
        snapshot.put("param", waiting.values | state.params, waiting.constraints | constraints)
        for path, tensors in state.modules.items():
            snapshot.put(f"module/{path}", tensors)
        return snapshot

    def snapshot(self) -> Snapshot:
        """All that the next step depends on."""
        snapshot = self.state_snapshot()
        snapshot.put("slot", *self.optimization.state())
        snapshot.put("result", self.optimization.results())
        snapshot.put("random", *get_random_state())
        snapshot.meta["step"] = self.step_count
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same recipe; ``CheckpointError`` if it does not fit."""
        if snapshot.meta["step"] > self.recipe.settings.steps:
            steps = self.recipe.settings.steps
            raise CheckpointError(f"the checkpoint has taken {snapshot.meta['step']} steps already, more than {steps}")
        self._restore_programs(snapshot, {})
        self.optimization.load_state(*snapshot.get("slot"))
        self.step_count = snapshot.meta["step"]
        set_random_state(*snapshot.get("random"))

    def meet_late_parameters(self) -> None:
        """Create the parameters that wait for a step, where none is left; an evaluation that leaves nothing else."""
        if not self._restoring.values:
            return
        before = Before(self.modules)
        with torch.no_grad(), self._restoring:
            self.elbo.loss(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
        before.restore_state()
        self.optimization.adopt()

    def restore_result(self, snapshot: Snapshot) -> None:
        """Move programs to the result that a snapshot has, with or without its optimizer; no step can follow."""
        self._restore_programs(snapshot, snapshot.get("result")[0])

    def _restore_programs(self, snapshot: Snapshot, instead: Mapping[str, Tensor]) -> None:
        """Give networks and parameters their values; those in ``instead`` go before the snapshot's."""
        for path, module in self.modules.items():
            values = snapshot.get(f"module/{path}")[0]
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name in values:
                    tensor.data.copy_(values[name])
        values, constraints = snapshot.get("param")
        self._restoring = Restoring({**values, **instead}, constraints)
        self._restoring.restore_existing()

    def _evaluate(self) -> float:
        """The loss, its gradient left in the parameters; if that fails, everything is as before, gradients too."""
        before = Before(self.modules)
        try:
            loss = self._loss_and_gradients()
            self._demand_finite(loss)
        except BaseException:
            self._random_after_failure = raw_random_state()
            before.restore()
            raise
        return loss

    def _minibatches(self) -> AbstractContextManager[Any]:
        """What decides which minibatches plates take."""
        return nullcontext()

    def _loss_and_gradients(self) -> float:
        try:
            with self._restoring if self._restoring.values else nullcontext(), self._plates:
                loss = self.elbo.loss_and_grads(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
        except MAYBE_NUMERICAL as error:
            if not is_numerical(error):
                raise
            raise NonFiniteError(math.nan, f"{self._at_which_parameters()}: {message_of(error, 200)}") from error
        return float(loss)

    def _demand_finite(self, loss: float) -> None:
        gradients = {name: param.grad for name, param in unconstrained_params().items() if param.grad is not None}
        if math.isfinite(loss) and (not gradients or all_finite(list(gradients.values()))):
            return
        names = [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())]
        where = f"non-finite gradient of {', '.join(names)}" if names else self._at_which_parameters()
        raise NonFiniteError(loss, where if math.isfinite(loss) else f"loss is {loss}; {where}")

    def _at_which_parameters(self) -> str:
        live = self.optimization.live
        names = [name for name, param in live.items() if not bool(torch.isfinite(param).all())]
        if names:
            return f"non-finite parameter {', '.join(names)}"
        sizes = ((float(param.detach().abs().max()) if param.numel() else 0.0, name) for name, param in live.items())
        size, name = max(sizes)
        return f"all parameters are finite, the largest {name} with {size:.3g} (unconstrained)"


class Before:
    """What an evaluation may change, as it was before it."""

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self._random = raw_random_state()
        store = pyro.get_param_store()
        self._names = set(store.keys())
        self._averages = {name: store[name].detach() for name in self._names if name.startswith(BASELINE_STATE_PREFIX)}
        self._buffers = [(buffer, buffer.clone()) for module in modules.values() for buffer in module.buffers()]

    def restore(self) -> None:
        """Put back random state, parameters that did not exist, estimator state, buffers; forget gradients."""
        store = pyro.get_param_store()
        for name in store.keys() - self._names:
            del store[name]
        self.restore_state()
        for param in unconstrained_params().values():
            param.grad = None

    def restore_state(self) -> None:
        """Put back random state, estimator state and buffers; parameters that did not exist stay."""
        set_raw_random_state(self._random)
        for name, value in self._averages.items():
            pyro.get_param_store()[name] = value
        for buffer, value in self._buffers:
            buffer.copy_(value)
