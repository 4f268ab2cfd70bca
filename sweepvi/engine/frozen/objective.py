"""The mean of a captured loss over frozen draws, as a function of parameters alone: value, gradient, Hessian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp

from sweepvi.engine.lanes.captured import Captured, NotCapturedError, capturing
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.noise import Sort

TOGETHER = 1 << 24
"""Memory that draws which are evaluated together may take: with more, they are no quicker."""

LONGER = 8
"""Factor between numbers of draws that an evaluation is traced for."""

KEPT = 1 << 28
"""Memory that an objective's noise may take; more of it is filled anew for each evaluation."""

STEP = 1e-5
"""Of a difference of gradients where the Hessian has no forward derivative, relative to the largest parameter."""


class DrawnLosses:
    """A captured loss as a function of several draws at a time; traced for the numbers of draws that are needed.

    Args:
        captured: the loss of one evaluation.
        numbers: the estimator's own, by where they are.
        draws: that an objective has, at least.

    """

    def __init__(self, captured: Captured, numbers: Mapping[str, float], draws: int) -> None:
        self._captured, self._numbers = captured, numbers
        room = max(1, TOGETHER // max(1, captured.lane_bytes))
        self._sizes = [min(draws, room)]
        while self._sizes[-1] * LONGER <= room:
            self._sizes.append(self._sizes[-1] * LONGER)
        self._known: dict[int, DrawnLoss] = {}

    def for_draws(self, draws: int) -> DrawnLoss:
        """What evaluates so many draws, by parts; ``NotCapturedError`` if it cannot be traced."""
        each = max(size for size in self._sizes if size <= max(draws, self._sizes[0]))
        if each not in self._known:
            self._known[each] = DrawnLoss(self._captured, self._numbers, each)
        return self._known[each]


class DrawnLoss:
    """A loss and its gradient for ``each`` draws of given noise at a time.

    Raises ``NotCapturedError``.
    """

    def __init__(self, captured: Captured, numbers: Mapping[str, float], each: int) -> None:
        self.captured, self.each = captured, each
        start = captured.start
        self._numbers = {
            name: torch.full((self.each,), number, dtype=torch.float64, device=start.device)
            for name, number in numbers.items()
        }
        self.sorts = list(captured.draws.noise.taken)
        given = [start, *self.noise(0, 0, each)]
        self._graph = capturing(lambda: StepGraph.traced(self._traceable, [], given, differentiable=True))

    def noise(self, seed: int, first: int, count: int) -> list[Tensor]:
        """Of draws from number ``first`` on, which are those that steps of these numbers would have: by sort."""
        device = self.captured.start.device
        seeds, steps = torch.tensor([seed], device=device), torch.arange(first, first + count, device=device)
        filled = self.captured.draws.noise.filled(seeds, steps)
        return [filled[sort][:, 0] for sort in self.sorts]

    def __call__(self, x: Tensor, noise: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Losses [each] and gradients [each, D] at a point, on noise of as many draws."""
        gradients, losses = self._graph([], [x, *noise])[1]
        return losses, gradients

    def products(self, x: Tensor, direction: Tensor, noise: list[Tensor]) -> Tensor:
        """The Hessian of each draw's loss times a direction: shape [each, D]."""
        if self._products is not None:
            return self._products([], [x, direction, *noise])[1][0]
        step = STEP * (1.0 + float(x.abs().max())) / max(float(direction.norm()), 1e-300)
        return (self(x + step * direction, noise)[1] - self(x - step * direction, noise)[1]) / (2.0 * step)

    def _traceable(self, x: Tensor, *noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        by_sort: dict[Sort, Tensor] = dict(zip(self.sorts, noise, strict=True))
        arena = x.expand(self.each, -1)
        gradients, losses, _ = self.captured.gradients(arena, {}, self._numbers, by_sort, [])
        return [], [gradients, losses]

    @cached_property
    def _products(self) -> StepGraph | None:
        """None where some operation has no forward derivative."""
        function, constants = self._graph.function, self._graph.constants

        def traceable(x: Tensor, direction: Tensor, *noise: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            def gradients(x: Tensor) -> Any:
                return function(x, *noise, *constants)[0]

            return [], [jvp(gradients, (x,), (direction,))[1]]

        x, noise = self.captured.start, self.noise(0, 0, self.each)
        try:
            return capturing(lambda: StepGraph.traced(traceable, [], [x, torch.ones_like(x), *noise]))
        except NotCapturedError:
            return None


class FrozenObjective:
    """The mean loss over the first draws of a seed: the same function at every call.

    Args:
        loss: of single draws.
        seed: of the noise.
        draws: M.

    Attributes:
        rounding: see :class:`sweepvi.optim.Objective`.
        evaluations: gradients of single draws that were computed so far.

    """

    def __init__(self, loss: DrawnLoss, seed: int, draws: int) -> None:
        self._loss, self._seed, self.draws = loss, seed, draws
        self.rounding = torch.finfo(loss.captured.start.dtype).eps
        self.evaluations = 0
        numbers = sum(loss.captured.draws.noise.taken.values()) * draws
        keeps = numbers * loss.captured.start.element_size() <= KEPT
        self._kept = list(self._chunks()) if keeps else None

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        """See :class:`sweepvi.optim.Objective`."""
        losses, gradients = self.by_draw(x)
        return float(losses.mean()), gradients

    def by_draw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each draw, float64, [M]; and the mean gradient, [D]."""
        total, found = torch.zeros_like(x, dtype=torch.float64), []
        for losses, gradients in self._evaluated(x):
            found.append(losses.double())
            total += gradients.double().sum(0)
        return torch.cat(found), (total / self.draws).to(x)

    def scatter(self, x: Tensor) -> Tensor:
        """The covariance of the gradients of single draws: float64, shape [D, D]."""
        products = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _, gradients in self._evaluated(x):
            products += gradients.double().mT @ gradients.double()
            total += gradients.double().sum(0)
        return (products - torch.outer(total, total) / self.draws) / (self.draws - 1)

    def hessian_times(self, x: Tensor, direction: Tensor) -> Tensor:
        """See :class:`sweepvi.optim.Objective`."""
        self.evaluations += 2 * self.draws
        found = torch.zeros_like(x, dtype=torch.float64)
        for count, noise in self._noise():
            found += self._loss.products(x, direction, noise)[:count].double().sum(0)
        return (found / self.draws).to(x)

    def hessian(self, x: Tensor) -> Tensor:
        """Float64, shape [D, D], symmetric."""
        rows = torch.stack([self.hessian_times(x, unit) for unit in torch.eye(len(x)).to(x)]).double()
        return 0.5 * (rows + rows.mT)

    def _evaluated(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        self.evaluations += self.draws
        for count, noise in self._noise():
            losses, gradients = self._loss(x, noise)
            yield losses[:count], gradients[:count]

    def _noise(self) -> Iterator[tuple[int, list[Tensor]]]:
        return iter(self._kept) if self._kept is not None else self._chunks()

    def _chunks(self) -> Iterator[tuple[int, list[Tensor]]]:
        """How many draws count, and the noise of ``each``, until all have been."""
        each = self._loss.each
        for first in range(0, self.draws, each):
            yield min(each, self.draws - first), self._loss.noise(self._seed, first, each)
