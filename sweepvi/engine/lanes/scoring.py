"""Scores of many fits at once: log p - log q of the same fresh draws for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import Captured
from sweepvi.engine.lanes.draw_function import DrawFunction
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.score import SCORE_SEED, Weigh, log_weight

AT_ONCE = 1 << 12
"""Draws of all lanes together that are evaluated at a time, at most."""

BYTES = 1 << 28
"""Memory that they may take together."""


class LaneScorer:
    """Log p(data, z) - log q(z) of many fits; what is traced for one number of lanes is kept for the next of as many.

    Raises ``NotCapturedError``. Plates are those where it is made. A first call for a number of lanes runs the
    programs, and so belongs into their environment.

    Args:
        engine: with the programs.
        captured: their parameters.
        weigh: what is computed of a draw; log p - log q unless given.

    """

    def __init__(self, engine: EagerEngine, captured: Captured, weigh: Weigh = log_weight) -> None:
        self._graphs: dict[tuple[int, int], StepGraph] = {}
        self._captured = captured
        self._function = DrawFunction(engine, captured, lambda programs, problem: [weigh(programs, problem)])

    def __call__(
        self,
        arena: Tensor,
        draws: int,
        interrupt: Interrupt,
        progress: Callable[[int, int], None] = lambda done, total: None,
        seed: int = SCORE_SEED,
    ) -> Tensor:
        """Of every lane, where draw number n of every lane is made of the same noise: float64, [K, draws].

        Fewer draws if the user interrupts.
        """
        each = max(1, min(draws, AT_ONCE // len(arena), BYTES // max(1, self._captured.lane_bytes * len(arena))))
        shape = len(arena), each
        found: list[Tensor] = []
        while len(found) * each < draws and not interrupt.requested:
            given = [arena, *self._function.given(len(found) * each, each, seed)]
            if shape not in self._graphs:
                self._graphs[shape] = StepGraph.traced(self._traceable, [], given)
            found.append(self._graphs[shape]([], given)[1][0].double().expand(len(arena), each).cpu())
            progress(min(draws, len(found) * each), draws)
        return (
            torch.cat(found, -1)[:, :draws] if found else torch.empty(len(arena), 0, dtype=torch.float64, device="cpu")
        )

    def _traceable(self, arena: Tensor, *given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if not given:
            # Nothing is drawn, as with a guide of deltas.
            return [], [vmap(lambda row: self._function(row)[0])(arena)[:, None]]

        def of_lane(row: Tensor) -> Tensor:
            def of_draw(*given: Any) -> Tensor:
                return self._function(row, *given)[0]

            return vmap(of_draw, randomness="error")(*given)

        return [], [vmap(of_lane, randomness="error")(arena)]
