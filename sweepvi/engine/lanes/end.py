"""The end of fits that were lanes: their scores, and fresh draws of the best, by one traced program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.fresh_draws import (
    LEAST_DRAWS,
    POSTERIOR_SEED,
    FreshDraws,
    Kept,
    Sites,
    concluded,
    room_for,
    sites_of,
)
from sweepvi.engine.interrupt import Interrupt
from sweepvi.engine.lanes.captured import Captured, NotCapturedError, capturing
from sweepvi.engine.lanes.draw_function import DrawFunction, Look
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.scoring import BYTES
from sweepvi.engine.score import SCORE_SEED, log_weights
from sweepvi.settings import Settings

Progress: TypeAlias = Callable[[int, int], None]

AT_ONCE = 1000
"""Draws that are evaluated at a time, at most."""

WORK = 2_000_000_000
"""Numbers that may be computed for the draws that are summarised: seconds. Where that is too few, scores are all."""


class LaneEnd:
    """Scores and fresh draws of fits of one program.

    One program is traced, for both and for all fits; what cannot be traced is run draw by draw. Plates are those where
    it is made, and where it is called.

    Args:
        engine: with the programs.
        captured: their parameters.
        settings: how many draws.

    """

    def __init__(self, engine: EagerEngine, captured: Captured, settings: Settings) -> None:
        self._engine, self._captured, self._settings = engine, captured, settings
        with engine.undone():
            sites = sites_of(engine.programs, engine.problem)
        self.sites, self._wanted, self.note = room_for(sites, settings.posterior_draws)
        self._drawer: _Drawer | None = None
        if max(settings.score_draws, self._wanted) == 0:
            return
        try:
            self._drawer = capturing(lambda: _Drawer(engine, captured, self._looked_for, self._at_once))
        except NotCapturedError:
            self._wanted = min(self._wanted, settings.score_draws)
            return
        most = int(WORK // max(1.0, self._drawer.numbers))
        if most < min(self._wanted, LEAST_DRAWS):
            self._wanted, self.note = 0, "no table of the posterior: the model is too large for draws beside the ELBO's"
        elif most < self._wanted:
            self._wanted, self.note = most, f"the posterior is by {most:,} draws: the model is too large for more"

    @property
    def _looked_for(self) -> Sites:
        return self.sites if self._wanted else self.sites.without_values()

    @property
    def _at_once(self) -> int:
        most = max(self._settings.score_draws, self._wanted)
        return max(1, min(AT_ONCE, most, BYTES // max(1, self._captured.lane_bytes)))

    def score(self, row: Tensor, interrupt: Interrupt, progress: Progress) -> Tensor:
        """Log p(data, z) - log q(z) of fresh draws, the same noise for every fit: float64, [score_draws].

        Fewer draws if the user interrupts.

        Args:
            row: the fit's parameters, shape [D].
            interrupt: whether the user wants to stop.
            progress: called with how many draws are evaluated, and of how many.

        """
        draws = self._settings.score_draws
        if draws == 0:
            return torch.empty(0, dtype=torch.float64, device="cpu")
        if self._drawer is not None:
            return self._drawer(row, draws, SCORE_SEED, interrupt, progress)[0].double()
        with self._moved(row):
            return log_weights(self._engine.programs, self._engine.problem, draws, interrupt, progress)

    def fresh(self, row: Tensor, interrupt: Interrupt, progress: Progress) -> FreshDraws | None:
        """Other draws of one fit, and what they show; None if the user interrupts."""
        if self._wanted == 0:
            return FreshDraws(self.sites)
        if self._drawer is not None:
            columns = self._drawer(row, self._wanted, POSTERIOR_SEED, interrupt, progress)
            return None if len(columns[0]) < self._wanted else concluded(self.sites, columns)
        kept = Kept(self.sites, self._wanted)
        programs, problem = self._engine.programs, self._engine.problem
        with self._moved(row):
            found = log_weights(programs, problem, self._wanted, interrupt, progress, POSTERIOR_SEED, kept)
        return None if len(found) < self._wanted else kept.concluded()

    def changed(
        self, row: Tensor, shapes: Sequence[tuple[int, ...]], change: Callable[[Tensor], Tensor], interrupt: Interrupt
    ) -> Tensor | None:
        """Scalars of the sites in draws like those of :meth:`fresh`, on standard normal noise that is changed.

        Args:
            row: the fit's parameters, shape [D].
            shapes: that the guide's draws have, which are all normal and come first.
            change: noise of some draws, shape [draws, numbers], to other noise of that shape.
            interrupt: whether the user wants to stop.

        Returns:
            Shape [draws, scalars]; None if there are no such draws, or the user interrupts.

        """
        drawer = self._drawer
        if drawer is None or self._wanted == 0 or not drawer.begins_with(shapes):
            return None
        columns = drawer(row, self._wanted, POSTERIOR_SEED, interrupt, lambda done, total: None, change)
        if len(columns[0]) < self._wanted:
            return None
        return torch.cat([value.reshape(len(value), -1) for value in columns[1:]], 1)

    def is_whole(self, log_weights: Tensor, fresh: FreshDraws | None) -> bool:
        """Whether these are all the draws that there were to be."""
        return len(log_weights) == self._settings.score_draws and fresh is not None

    @contextmanager
    def _moved(self, row: Tensor) -> Iterator[None]:
        """Inside, the programs have a fit's parameters."""
        with self._engine.undone():
            self._engine.move_to(self._captured.unpacked(row))
            yield


class _Drawer:
    """Draws of one fit after another, ``each`` at a time; ``NotCapturedError`` if it cannot be traced."""

    def __init__(self, engine: EagerEngine, captured: Captured, look: Look, each: int) -> None:
        self._each = each
        self._function = DrawFunction(engine, captured, look)
        given = [captured.start, *self._function.given(0, each, SCORE_SEED)]
        self._graph = StepGraph.traced(self._traceable, [], given)
        self._last: tuple[tuple[int, int], list[Tensor]] = (0, SCORE_SEED), given[1:]

    @property
    def numbers(self) -> float:
        """How many a draw computes."""
        return self._graph.numbers / self._each

    def begins_with(self, shapes: Sequence[tuple[int, ...]]) -> bool:
        """Whether the first numbers that a draw takes are normals of these shapes."""
        first = [draw for draw in self._function.layout.draws if draw.kind == "normal"][: len(shapes)]
        return [draw.shape for draw in first] == list(shapes)

    def _normals(self, given: list[Tensor], change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What is given, with other standard normal noise."""
        sorts = self._function.sorts
        kinds = [sort.kind for sort in sorts] + [""] * (len(given) - len(sorts))
        return [change(noise) if kind == "normal" else noise for kind, noise in zip(kinds, given, strict=True)]

    def __call__(
        self,
        row: Tensor,
        draws: int,
        seed: int,
        interrupt: Interrupt,
        progress: Progress,
        change: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Tensor]:
        """What is seen of some draws of a fit: shape [draws, …] each, on the CPU; fewer if the user interrupts."""
        parts: list[list[Tensor]] = []
        while len(parts) * self._each < draws and not interrupt.requested:
            given = self._given(len(parts) * self._each, seed)
            given = given if change is None else self._normals(given, change)
            seen = self._graph([], [row, *given])[1]
            parts.append([(value if given else value.expand(self._each, *value.shape[1:])).cpu() for value in seen])
            progress(min(draws, len(parts) * self._each), draws)
        if not parts:
            return [torch.empty(0, dtype=torch.float64, device="cpu")]
        return [torch.cat(column)[:draws] for column in zip(*parts, strict=True)]

    def _given(self, first: int, seed: int) -> list[Tensor]:
        """What some draws are made of: the same for every fit, so that the last of it is kept."""
        if self._last[0] != (first, seed):
            self._last = (first, seed), self._function.given(first, self._each, seed)
        return self._last[1]

    def _traceable(self, row: Tensor, *given: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        if not given:
            # Nothing is drawn, as with a guide of deltas.
            return [], [value[None] for value in self._function(row)]

        def of_draw(*given: Any) -> tuple[Tensor, ...]:
            return tuple(self._function(row, *given))

        return [], list(vmap(of_draw, randomness="error")(*given))
