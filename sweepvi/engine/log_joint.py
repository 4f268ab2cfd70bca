"""A model's log joint density in unconstrained coordinates, with gradients for many points at once.

It is minus the loss of a guide that is a point, so whatever a fit can run has one: enumerated variables are summed out,
and what can be captured is traced and checked as the steps of a fit are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from torch import Tensor
from torch.func import grad, jacrev, jvp

from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.engine.environment import device_of, dtype_of, environment
from sweepvi.engine.lanes.captured import Captured, NotCapturedError, captured, capturing
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.errors import listed
from sweepvi.estimators import Trace
from sweepvi.estimators.estimator import Estimator
from sweepvi.estimators.sites import WHITENED
from sweepvi.estimators.trace_enum import TraceEnum
from sweepvi.geometry import AffineMap, Coordinates, NoGeometryError, whitened
from sweepvi.guides.custom import GivenGuide
from sweepvi.guides.initial import init_values
from sweepvi.optim import ClippedAdamRule
from sweepvi.partition import Single
from sweepvi.problem import Problem
from sweepvi.programs import reachable_modules
from sweepvi.random_state import seeded
from sweepvi.recipe import ParameterGroup, Recipe
from sweepvi.schedule import Constant
from sweepvi.settings import Settings

POINT = "point"

AT_ONCE = 16
"""Points that are evaluated together, whatever their number: one program is traced, not one for each number."""


STEP = 1e-5
"""Length of a step for differences of gradients, relative to the largest coordinate."""


class Density(Protocol):
    """Minus a log joint and its gradient, of points [K, D]; and products with the Hessian of that at one."""

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values [K] and gradients [K, D]."""
        ...

    def hessian(self, x: Tensor) -> Tensor:
        """Shape [D, D]."""
        ...

    def hessian_times(self, x: Tensor, directions: Tensor) -> Tensor:
        """Of directions [K, D]: shape [K, D]."""
        ...


class ModelLogJoint:
    """See :class:`sweepvi.geometry.LogJoint`; make one with :func:`log_joint_of`.

    Attributes:
        coordinates: what x is made of.

    """

    def __init__(self, problem: Problem, coordinates: Coordinates, density: Density, device: torch.device) -> None:
        self.coordinates = coordinates
        self.size = coordinates.size
        self.evaluations = 0
        self._problem, self._density, self._device = problem, density, device

    def starts(self, count: int, seed: int) -> Tensor:
        """See :class:`sweepvi.geometry.LogJoint`: the prior median, then by turns prior draws and uniform (-2, 2)."""
        rows = []
        for number in range(count):
            with seeded((seed + number * 0x9E3779B1) % 2**32), torch.no_grad():
                if number and number % 2 == 0:
                    rows.append(4.0 * torch.rand(self.size) - 2.0)
                else:
                    rows.append(_start(self._problem, self.coordinates, "sample" if number else "median"))
        return torch.stack(rows).to(self._device)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`sweepvi.geometry.LogJoint`."""
        self.evaluations += len(x)
        values, gradients = self._density(x)
        return -values, -gradients

    def hessian(self, x: Tensor) -> Tensor:
        """See :class:`sweepvi.geometry.LogJoint`."""
        self.evaluations += self.size
        return -self._density.hessian(x)

    def hessian_times(self, x: Tensor, directions: Tensor) -> Tensor:
        """See :class:`sweepvi.geometry.LogJoint`."""
        self.evaluations += 2 * len(directions)
        return -self._density.hessian_times(x, directions)


@contextmanager
def log_joint_of(recipe: Recipe) -> Iterator[ModelLogJoint]:
    """The log joint of a recipe's model in float64, inside an environment of its own.

    Raises:
        NoGeometryError: the model has none, and why.
        Exception: the model's own, if it does not run on its data.

    """
    settings = Settings(dtype="float64", device=recipe.settings.device, deterministic=recipe.settings.deterministic)
    with environment(settings, reachable_modules(recipe.reach())) as isolation:
        problem = recipe.problem.to(dtype_of(settings), device_of(settings))
        problem = replace(problem, model=recipe.estimator.configured(problem.model))
        with torch.no_grad():
            coordinates = Coordinates.of(started_trace(problem, "median"))
        identity = AffineMap(torch.zeros(coordinates.size), torch.ones(coordinates.size))
        engine = EagerEngine(_point_recipe(recipe, settings, coordinates, identity), isolation)
        others = [name for name in engine.optimization.live if name != POINT]
        if others:
            raise NoGeometryError(f"the model has parameters of its own: {listed(others)}")
        yield ModelLogJoint(problem, coordinates, _density(engine), device_of(settings))


def _point_recipe(recipe: Recipe, settings: Settings, coordinates: Coordinates, identity: AffineMap) -> Recipe:
    """A fit whose loss is minus the log joint at its one parameter."""
    problem = replace(recipe.problem, model=whitened(recipe.problem.model, coordinates, identity))
    rule = ClippedAdamRule()
    return replace(
        recipe,
        problem=problem,
        guide=GivenGuide(_PointGuide(coordinates.size)),
        estimator=_estimator(recipe.estimator),
        optimizer=rule,
        scheduler=Constant(),
        partition=Single(),
        groups={"all": ParameterGroup("all", rule, Constant(), 1.0, frozen=False, shares_norm=True)},
        settings=settings,
    )


def _estimator(estimator: Estimator) -> Estimator:
    """One whose loss has no noise; it sums out what the fit's own does."""
    return TraceEnum(max_plate_nesting=getattr(estimator, "max_plate_nesting", None)) if estimator.sums_out else Trace()


class _PointGuide:
    """A guide that is a point."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        del args, kwargs
        point = pyro.param(POINT, lambda: torch.zeros(self._size))
        return pyro.sample(WHITENED, dist.Delta(point).to_event(1))


def _density(engine: EagerEngine) -> Density:
    try:
        return _CapturedDensity(captured(engine))
    except NotCapturedError:
        return _EagerDensity(engine)


class _CapturedDensity:
    """By the captured function, traced once, for :data:`AT_ONCE` points."""

    def __init__(self, function: Captured) -> None:
        self._function = function
        points = [function.start.expand(AT_ONCE, -1)]
        self._graph = capturing(lambda: StepGraph.traced(self._traceable, [], points, differentiable=True))

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._some(part) for part in x.split(AT_ONCE)]
        return torch.cat([loss for loss, _ in parts]), torch.cat([gradient for _, gradient in parts])

    def _some(self, x: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([x, x[-1:].expand(AT_ONCE - len(x), -1)])
        gradient, loss = self._graph([], [padded])[1]
        return loss[: len(x)], gradient[: len(x)]

    def _traceable(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        gradient, loss, _ = self._function.gradients(x, {}, {}, {}, [])
        return [], [gradient, loss]

    def hessian(self, x: Tensor) -> Tensor:
        try:
            return self._of_gradients(x, torch.eye(len(x)).to(x))
        except (RuntimeError, NotImplementedError):
            # Some operations have no forward derivative.
            return jacrev(grad(self._loss))(x).detach()

    def hessian_times(self, x: Tensor, directions: Tensor) -> Tensor:
        try:
            return self._of_gradients(x, directions)
        except (RuntimeError, NotImplementedError):
            return differences(self, x, directions)

    def _of_gradients(self, x: Tensor, directions: Tensor) -> Tensor:
        """Rows of the Hessian times directions, each the derivative of another point's gradient."""
        # Rows of their own: a tangent can be put beside no element that is several rows'.
        points = x.repeat(AT_ONCE, 1)

        def gradients(points: Tensor) -> Tensor:
            return self._graph.function(points, *self._graph.constants)[0]

        rows = []
        for part in directions.split(AT_ONCE):
            padded = torch.cat([part, part.new_zeros(AT_ONCE - len(part), len(x))])
            rows.append(jvp(gradients, (points,), (padded,))[1][: len(part)])
        return torch.cat(rows).detach()

    def _loss(self, x: Tensor) -> Tensor:
        function = self._function
        return function.draws.served(lambda: function.evaluation({POINT: x}, {}, {}).surrogate, {}, [])


class _EagerDensity:
    """Point by point."""

    def __init__(self, engine: EagerEngine) -> None:
        self._engine = engine

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = [self._at(point) for point in x]
        return torch.stack([value for value, _ in found]), torch.stack([slope for _, slope in found])

    def _at(self, point: Tensor) -> tuple[Tensor, Tensor]:
        self._engine.move_to({POINT: point})
        try:
            loss, gradients = self._engine.gradients()
        except NonFiniteError:
            return torch.full((), torch.nan), torch.full_like(point, torch.nan)
        return torch.tensor(loss), gradients[POINT]

    def hessian(self, x: Tensor) -> Tensor:
        """By central differences of gradients, with steps that fit the curvature along each coordinate."""
        curvature = self._differences(x, torch.full_like(x, 1e-4)).diagonal().abs()
        found = self._differences(x, 1e-4 * curvature.clamp(min=1e-8).rsqrt())
        return 0.5 * (found + found.mT)

    def hessian_times(self, x: Tensor, directions: Tensor) -> Tensor:
        return differences(self, x, directions)

    def _differences(self, x: Tensor, step: Tensor) -> Tensor:
        _, up = self(x + torch.diag(step))
        _, down = self(x - torch.diag(step))
        return (up - down) / (2.0 * step[:, None])


def differences(density: Density, x: Tensor, directions: Tensor) -> Tensor:
    """The Hessian times directions, by central differences of gradients: shape [K, D]."""
    size = directions.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    step = STEP * (1.0 + x.abs().max()) / size
    _, up = density(x + step * directions)
    _, down = density(x - step * directions)
    return (up - down) / (2.0 * step)


def started_trace(problem: Problem, start: str) -> Any:
    """The trace of a model whose latent variables are where ``init=start`` has them."""
    model = InitMessenger(init_values(start))(problem.model)
    return poutine.trace(model).get_trace(*problem.args, **problem.kwargs)


def _start(problem: Problem, coordinates: Coordinates, start: str) -> Tensor:
    return coordinates.packed(started_trace(problem, start)).to(torch.float64)
