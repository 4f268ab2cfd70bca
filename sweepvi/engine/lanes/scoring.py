"""Scores of many fits at once: log p - log q of the same fresh draws for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import vmap

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import Captured, Draws, NotCapturedError, capturing, demand_close
from sweepvi.engine.lanes.evaluation import NotedBackward
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.minibatches import GivenMinibatches, filled
from sweepvi.engine.lanes.noise import Sort
from sweepvi.engine.lanes.randomness import Given
from sweepvi.engine.score import SCORE_SEED, Weigh, log_weight, log_weights
from sweepvi.private import transformable

STREAM = 2
"""Of the random numbers; steps have another."""

AT_ONCE = 1 << 12
"""Draws of all lanes together that are evaluated at a time, at most."""

BYTES = 1 << 28
"""Memory that they may take together."""


def lane_scores(
    engine: EagerEngine,
    captured: Captured,
    arena: Tensor,
    draws: int,
    interrupt: Interrupt,
    progress: Callable[[int, int], None],
) -> Tensor:
    """Log p(data, z) - log q(z), where draw number n of every lane is made of the same noise: float64, [K, draws].

    Fewer draws if the user interrupts. What cannot be captured is evaluated one by one.
    """
    if draws == 0:
        return torch.empty(len(arena), 0, dtype=torch.float64)
    try:
        scorer = capturing(lambda: LaneScorer(engine, captured))
    except NotCapturedError:
        return _one_by_one(engine, captured, arena, draws, interrupt, progress)
    return scorer(arena, draws, interrupt, progress)


def _one_by_one(
    engine: EagerEngine,
    captured: Captured,
    arena: Tensor,
    draws: int,
    interrupt: Interrupt,
    progress: Callable[[int, int], None],
) -> Tensor:
    found = []
    with engine.undone():
        for row in arena:
            engine.move_to(captured.unpacked(row))
            found.append(log_weights(engine.programs, engine.problem, draws, interrupt, progress))
    shortest = min(map(len, found))
    return torch.stack([weights[:shortest] for weights in found])


class LaneScorer:
    """:func:`lane_scores` for many calls; what is traced for one number of lanes is kept for the next of as many.

    Raises ``NotCapturedError``. Plates are those where it is made. A first call for a number of lanes runs the
    programs, and so belongs into their environment.

    Args:
        engine: with the programs.
        captured: their parameters.
        weigh: what is computed of a draw; log p - log q unless given.

    """

    def __init__(self, engine: EagerEngine, captured: Captured, weigh: Weigh = log_weight) -> None:
        self._weigh = weigh
        self._graphs: dict[tuple[int, int], StepGraph] = {}
        self._engine, self._captured = engine, captured
        self._params = captured.unpacked(captured.start)
        _, self._draws = Draws.of(lambda: self._weight(self._params))
        self._demand_equal()

    def __call__(
        self,
        arena: Tensor,
        draws: int,
        interrupt: Interrupt,
        progress: Callable[[int, int], None] = lambda done, total: None,
        seed: int = SCORE_SEED,
    ) -> Tensor:
        """See :func:`lane_scores`; draws are those of ``seed``."""
        each = max(1, min(draws, AT_ONCE // len(arena), BYTES // max(1, self._captured.lane_bytes * len(arena))))
        shape = len(arena), each
        found: list[Tensor] = []
        while len(found) * each < draws and not interrupt.requested:
            given = [arena, *self._given(len(found) * each, each, seed)]
            if shape not in self._graphs:
                self._graphs[shape] = StepGraph.traced(self._traceable, [], given)
            found.append(self._graphs[shape]([], given)[1][0].double().expand(len(arena), each).cpu())
            progress(min(draws, len(found) * each), draws)
        return torch.cat(found, -1)[:, :draws] if found else torch.empty(len(arena), 0, dtype=torch.float64)

    def _weight(self, params: Mapping[str, Tensor]) -> Tensor:
        with self._captured.evaluation.placed(params), NotedBackward():
            return self._weigh(self._engine.programs, self._engine.problem)

    def _traceable(self, arena: Tensor, *given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        sorts, plates = list(self._draws.noise.taken), self._draws.minibatches
        noise, rows = dict(zip(sorts, given[: len(sorts)], strict=True)), list(given[len(sorts) :])
        assert len(rows) == len(plates)

        def of_draw(row: Tensor, noise: dict[Sort, Tensor], rows: list[Tensor]) -> Tensor:
            params = self._captured.unpacked(row)
            return self._draws.served(lambda: self._weight(params), noise, rows)

        def of_lane(row: Tensor) -> Tensor:
            return vmap(lambda noise, rows: of_draw(row, noise, rows), randomness="error")(noise, rows)

        if not given:
            # Nothing is drawn, as with a guide of deltas.
            return [], [vmap(lambda row: of_draw(row, {}, []))(arena)[:, None]]
        return [], [vmap(of_lane, randomness="error")(arena)]

    def _given(self, first: int, count: int, seed: int = SCORE_SEED) -> list[Tensor]:
        """Noise by sort and minibatches of some draws: shape [count, …] each."""
        device = self._captured.start.device
        steps = torch.arange(first, first + count, device=device)
        noise = self._draws.noise.filled(torch.tensor([seed], device=device), steps, STREAM)
        rows = filled(self._draws.minibatches, seed, steps)
        return [*(noise[sort][:, 0] for sort in self._draws.noise.taken), *rows]

    def _demand_equal(self) -> None:
        """Compare one draw with the programs as they are."""
        given = self._given(0, 1)
        [[weight]] = self._traceable(self._captured.start[None], *given)[1][0]
        sorts = list(self._draws.noise.taken)
        noise = {sort: numbers[0] for sort, numbers in zip(sorts, given, strict=False)}
        rows = [row[0] for row in given[len(sorts) :]]
        engine = self._engine
        own = self._draws.noise.of_lane(noise)
        with engine.undone(), transformable(), GivenMinibatches(rows), Given(own, in_place=True):
            engine.move_to(self._params)
            expected = self._weigh(engine.programs, engine.problem)
        tolerance_as = self._captured.start.dtype
        demand_close("a fresh draw's log weight", weight.to(tolerance_as), expected.to(tolerance_as))
