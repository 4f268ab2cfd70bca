"""One fit by a minimizer: searches on more and more draws, until these are enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from torch import Tensor

from sweepvi.engine.frozen.objective import FrozenObjective
from sweepvi.optim import Minimizer, Search

End: TypeAlias = Literal["", "converged", "stuck", "max_draws", "steps", "diverged"]
"""Why a fit is over: draws are enough at a minimum; no step lowered the loss short of one; there were to be no more
draws; or no more steps; or the loss is not finite where it starts. Empty while it goes on."""


LOOSE = 1e-3
"""Of the tolerance, the decrease that a step promises at which a search is near enough to its minimum to tell whether
draws are enough."""


DOUBLINGS = 2
"""At least, before draws are enough: what one gains is little by chance at times."""


class FrozenSearch:
    """A fit under one seed; :meth:`step` moves it.

    Args:
        minimizer: that moves it, and says when draws are enough.
        objective: the mean loss over so many draws.
        start: parameters, shape [D].
        draws: to begin with.
        grows: whether there can be more draws: not where nothing is drawn.
        steps: at most, of all searches together.

    Attributes:
        end: why it is over; empty until then.
        losses: the objective before each step, float; one more than steps if it has diverged.
        rates: what governed each step.
        steps: taken.
        gap: estimate of the nats that the minimum is short of the loss's own, by what doublings have gained; None
            before there was one.
        evaluations: gradients of single draws that were computed.

    """

    def __init__(
        self,
        minimizer: Minimizer,
        objective: Callable[[int], FrozenObjective],
        start: Tensor,
        draws: int,
        grows: bool,
        steps: int,
    ) -> None:
        self._minimizer, self._objective, self._grows, self._most = minimizer, objective, grows, steps
        self.end: End = ""
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.gap: float | None = None
        self._doublings = 0
        self._earlier = 0
        self._doubled_at: float | None = None
        self._enough = False
        self.objective, self._search = self._begun(start, draws)

    @property
    def point(self) -> Tensor:
        """Parameters where it stands, shape [D]."""
        return self._search.point

    @property
    def gradient(self) -> Tensor:
        """Of the objective there, shape [D]."""
        return self._search.gradient

    @property
    def gradient_size(self) -> float:
        """Largest entry of the objective's gradient there."""
        return float(self.gradient.abs().max())

    @property
    def draws(self) -> int:
        """M, of the objective at hand."""
        return self.objective.draws

    @property
    def steps(self) -> int:
        """Taken so far."""
        return len(self.losses) - (self.end == "diverged")

    @property
    def evaluations(self) -> int:
        """See the class."""
        return self._earlier + self.objective.evaluations

    @property
    def last_loss(self) -> float:
        """Of the objective where it stands."""
        return self._search.value

    def step(self) -> None:
        """Take a step; near a minimum, go on to more draws, or to the minimum itself where they are enough."""
        if self._search.ended or (not self._enough and self._search.promised <= LOOSE * self._minimizer.tolerance):
            self._next()
        elif self.steps >= self._most:
            self.end = "steps"
        else:
            self._take()

    def _take(self) -> None:
        before = self._search.value
        if self._search.step():
            self.losses.append(before)
            self.rates.append(self._search.rate)

    def _next(self) -> None:
        """What follows the end of a search."""
        most = self._minimizer.max_draws
        if not self._enough and self._doubled_at is not None:
            self._see(self._doubled_at - self._search.value)
        known = self.gap if self._doublings >= DOUBLINGS else None
        settled = not self._grows or (known is not None and known <= self._minimizer.tolerance)
        self._enough = self._enough or settled or 2 * self.draws > most
        if not self._enough:
            self._earlier += self.objective.evaluations
            self.objective, self._search = self._begun(self.point, 2 * self.draws)
            self._doubled_at = self._search.value
        elif self._search.ended:
            self.end = "stuck" if self._search.ended == "stuck" else "converged" if settled else "max_draws"

    def _see(self, gain: float) -> None:
        """Take what the last doubling has gained into the estimate; what those before have gained halves by each."""
        self.gap = gain if self.gap is None else 0.5 * (gain + 0.5 * self.gap)
        self._doublings += 1

    def _begun(self, start: Tensor, draws: int) -> tuple[FrozenObjective, Search]:
        objective = self._objective(draws)
        search = self._minimizer.search(objective, start)
        if not math.isfinite(search.value) or not bool(search.gradient.isfinite().all()):
            self.end = "diverged"
            self.losses.append(search.value)
            self.rates.append(math.nan)
        return objective, search
