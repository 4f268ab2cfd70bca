"""The eager engine: Pyro's own mechanics, with one optimizer over all parameters."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pyro
import torch
from torch import Tensor

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.environment import device_of, dtype_of
from sweepvi.engine.optimization import Optimization
from sweepvi.engine.restoring import Restoring
from sweepvi.estimators.trace_graph import BASELINE_STATE_PREFIX
from sweepvi.loading import message_of
from sweepvi.private import LinAlgError, all_finite
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
        self.programs = {"model": self.problem.model, "guide": recipe.guide.build(self.problem.model)}
        self.optimization = Optimization(recipe)
        self.step_count = 0
        self._elbo = recipe.estimator.build()
        self._restoring = Restoring({}, {})
        with torch.no_grad():
            self._elbo.loss(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
        self.optimization.adopt()
        # So that a step's draws do not depend on how many it took to get here.
        pyro.set_rng_seed(settings.seed)

    def step(self) -> float:
        """One update; returns the estimate of -ELBO before it.

        Raises ``NonFiniteError``, with no parameter changed, when the loss, a gradient or the model's own arithmetic
        is not finite. Estimator state is put back too: one NaN would stay in an average for ever.
        """
        averages = _estimator_state()
        try:
            loss = self._loss_and_gradients()
            self._demand_finite(loss)
        except NonFiniteError:
            self.optimization.clear_gradients()
            _restore_estimator_state(averages)
            raise
        self.optimization.step(self.step_count)
        self.optimization.clear_gradients()
        self.step_count += 1
        return loss

    def skip(self) -> None:
        """Count a step that changed nothing."""
        self.step_count += 1

    def rate(self) -> float:
        """The first group's effective step size at the next update."""
        return self.optimization.rate(self.step_count)

    def fitted_state(self) -> FittedState:
        """A copy of everything that model and guide need to run as fitted."""
        state = fitted_state(self.programs)
        keep = [name for name in state.params if not name.startswith(BASELINE_STATE_PREFIX)]
        params, constraints = ({name: table[name] for name in keep} for table in (state.params, state.constraints))
        return FittedState(params, constraints, state.modules)

    def snapshot(self) -> Snapshot:
        """All that the next step depends on."""
        state, waiting = fitted_state(self.programs), self._restoring
        constraints = {name: repr(constraint) for name, constraint in state.constraints.items()}
        snapshot = Snapshot()
        snapshot.put("param", waiting.values | state.params, waiting.constraints | constraints)
        for path, tensors in state.modules.items():
            snapshot.put(f"module/{path}", tensors)
        snapshot.put("slot", *self.optimization.state())
        snapshot.put("random", *get_random_state())
        snapshot.meta["step"] = self.step_count
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same recipe; ``CheckpointError`` if it does not fit."""
        for path, module in reachable_modules(self.programs).items():
            values = snapshot.get(f"module/{path}")[0]
            for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
                if name in values:
                    tensor.data.copy_(values[name])
        self._restoring = Restoring(*snapshot.get("param"))
        self._restoring.restore_existing()
        self.optimization.load_state(*snapshot.get("slot"))
        self.step_count = snapshot.meta["step"]
        set_random_state(*snapshot.get("random"))

    def _loss_and_gradients(self) -> float:
        try:
            with self._restoring if self._restoring.values else nullcontext():
                loss = self._elbo.loss_and_grads(*self.programs.values(), *self.problem.args, **self.problem.kwargs)
        except (ValueError, ArithmeticError, LinAlgError) as error:
            # The model has run before, so what fails now is its arithmetic: a scale that became NaN, a matrix that
            # is not positive definite.
            raise NonFiniteError(math.nan, f"{self._at_which_parameters()}: {message_of(error, 200)}") from error
        self.optimization.adopt()
        return float(loss)

    def _demand_finite(self, loss: float) -> None:
        gradients = self.optimization.gradients()
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
        size, name = max(
            (float(param.detach().abs().max()) if param.numel() else 0.0, name) for name, param in live.items()
        )
        return f"all parameters are finite, the largest {name} with {size:.3g} (unconstrained)"


def _restore_estimator_state(averages: dict[str, Tensor]) -> None:
    store = pyro.get_param_store()
    for name in _estimator_state().keys() - averages.keys():
        del store[name]
    for name, value in averages.items():
        store[name] = value


def _estimator_state() -> dict[str, Tensor]:
    store = pyro.get_param_store()
    names = [name for name in list(store) if name.startswith(BASELINE_STATE_PREFIX)]
    return {name: store[name].detach() for name in names}
