"""What a minimizer is: an optimizer that needs the same function at every call.

Update rules follow gradients that are noisy, each for itself. A minimizer compares values, and gradients at different
points: of an ELBO, these differ by noise alone unless the noise is frozen. Then the mean loss over M draws,

    f(x) = 1/M Σₘ loss(x, noise m),

is a function like any other, the sample-average approximation of the loss: Giordano, Ingram & Broderick, "Black Box
Variational Inference with a Deterministic Objective", JMLR 2024 (DADVI). Its minimum is off the loss's own by what M
draws leave to chance. Draws are doubled until that is little: Burroni, Domke & Sheldon, "Sample Average Approximation
for Black-Box Variational Inference", UAI 2024, who grow them too.

How much is little is measured: x, the minimum by the first M of 2M draws, is the mean of two independent estimates less
precise than the minimum x' by all of them, so that f(x) − f(x') by 2M draws has, to first order, the same expectation
as what the loss itself has left to gain at x'. By chance it may be little, so the gain of the doubling before, halved,
counts as much.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeAlias

from torch import Tensor

from sweepvi.keys import Key, Keyed

DRAWS = 32
"""To begin with: standard errors by them are calibrated from about that number on (DADVI)."""

Ended: TypeAlias = Literal["", "converged", "stuck"]


class Objective(Protocol):
    """A function of D numbers that is the same at every call.

    Attributes:
        rounding: relative error of a value, by the type in which it is computed.

    """

    rounding: float

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        """Value and gradient, [D], at a point, [D]; neither needs to be finite."""
        ...

    def hessian_times(self, x: Tensor, direction: Tensor) -> Tensor:
        """The Hessian at a point times a direction: shape [D]."""
        ...


class Search(ABC):
    """A search for a minimum in progress.

    Attributes:
        point: where it stands, shape [D].
        value: of the objective there.
        gradient: shape [D].
        rate: what the last step was governed by: a share of the direction, or a radius.
        promised: the decrease that the model of the last step had promised; infinite before the first.
        ended: why there is no next step: the gradient is small enough, or no step lowers the value; else empty.

    """

    def __init__(self, objective: Objective, start: Tensor, gradient_tolerance: float) -> None:
        self.objective, self.point = objective, start
        self.value, self.gradient = objective(start)
        self.rate, self.promised = float("nan"), float("inf")
        self.ended: Ended = ""
        self._tolerance = gradient_tolerance
        self._look()

    @abstractmethod
    def step(self) -> bool:
        """Go on to a point of lower value; false, with ``ended`` set, if there is none."""

    def _move(self, point: Tensor, value: float, gradient: Tensor) -> None:
        self.point, self.value, self.gradient = point, value, gradient
        self._look()

    def _look(self) -> None:
        if float(self.gradient.abs().max()) <= self._tolerance:
            self.ended = "converged"

    @property
    def _slack(self) -> float:
        """Differences of values that are rounding."""
        return self.objective.rounding * (1.0 + abs(self.value))

    def _give_up(self, promised: float) -> bool:
        """End, as converged if the decrease that is promised is beyond what rounding lets one see."""
        self.ended = "converged" if promised <= 10 * self._slack else "stuck"
        return False


@dataclass(frozen=True)
class Minimizer(Keyed, ABC):
    """An optimizer of a deterministic objective; it needs ``engine.noise=fixed``."""

    draws: Annotated[
        int | None, Key("frozen draws to begin with; null: 32, or twice what the guide needs if that is more", ge=2)
    ] = None
    max_draws: Annotated[int, Key("draws up to which they are doubled", ge=2)] = 1024
    tolerance: Annotated[
        float, Key("nats short of the optimum for lack of draws, below which these are enough", gt=0)
    ] = 0.05
    gradient_tolerance: Annotated[
        float, Key("largest entry of the gradient at a minimum, nats for a unit of an unconstrained parameter", gt=0)
    ] = 1e-4
    linear_response: Annotated[
        bool, Key("also standard deviations by linear response: columns lr_mean and lr_sd of the posterior's table")
    ] = False

    def conflicts(self) -> dict[str, str]:
        """Fewer draws at the end than at the start."""
        if self.draws is None or self.draws <= self.max_draws:
            return {}
        return {"max_draws": f"must be at least draws, {self.draws}"}

    @abstractmethod
    def search(self, objective: Objective, start: Tensor) -> Search:
        """A search for a minimum of an objective, from a point of shape [D]."""
