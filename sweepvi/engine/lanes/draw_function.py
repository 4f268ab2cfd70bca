"""What programs compute for a fresh draw, as a pure function of parameters and noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.lanes.captured import Captured, Draws, demand_close
from sweepvi.engine.lanes.evaluation import NotedBackward
from sweepvi.engine.lanes.minibatches import GivenMinibatches, filled
from sweepvi.engine.lanes.noise import NoiseLayout, Sort
from sweepvi.engine.lanes.randomness import Given
from sweepvi.guides.guide import Program
from sweepvi.private import transformable
from sweepvi.problem import Problem

Look: TypeAlias = Callable[[Mapping[str, Program], Problem], list[Tensor]]
"""Of programs and a problem, numbers for one draw of the guide."""

STREAM = 2
"""Of the random numbers; steps have another."""


class DrawFunction:
    """Call it with a fit's parameters, and noise and minibatches of one draw.

    Raises ``NotCapturedError``. Plates are those where it is made.

    Args:
        engine: with the programs.
        captured: their parameters.
        look: what is computed of a draw.

    """

    def __init__(self, engine: EagerEngine, captured: Captured, look: Look) -> None:
        self._look, self._engine, self._captured = look, engine, captured
        self._params = captured.unpacked(captured.start)
        _, self._draws = Draws.of(lambda: self._seen(self._params))
        self.sorts = list(self._draws.noise.taken)
        """Of noise, in the order of what :meth:`given` returns."""
        self._demand_equal()

    @property
    def layout(self) -> NoiseLayout:
        """Of the noise of one draw."""
        return self._draws.noise

    def __call__(self, row: Tensor, *given: Tensor) -> list[Tensor]:
        """What is seen of one draw.

        Args:
            row: parameters, shape [D].
            *given: rows of what :meth:`given` returns.

        """
        noise, rows = self._parted(given)
        assert len(rows) == len(self._draws.minibatches)
        params = self._captured.unpacked(row)
        return self._draws.served(lambda: self._seen(params), noise, rows)

    def given(self, first: int, count: int, seed: int) -> list[Tensor]:
        """Noise by sort and minibatches of some draws: shape [count, …] each; empty if nothing is drawn."""
        device = self._captured.start.device
        steps = torch.arange(first, first + count, device=device)
        noise = self._draws.noise.filled(torch.tensor([seed], device=device), steps, STREAM)
        rows = filled(self._draws.minibatches, seed, steps)
        return [*(noise[sort][:, 0] for sort in self.sorts), *rows]

    def _parted(self, given: tuple[Tensor, ...]) -> tuple[dict[Sort, Tensor], list[Tensor]]:
        return dict(zip(self.sorts, given, strict=False)), list(given[len(self.sorts) :])

    def _seen(self, params: Mapping[str, Tensor]) -> list[Tensor]:
        with self._captured.evaluation.placed(params), NotedBackward(), warnings.catch_warnings():
            # Pyro means parameters of networks that are frozen; here, none asks for gradients.
            warnings.filterwarnings("ignore", message=".* was not registered in the param store", category=UserWarning)
            return self._look(self._engine.programs, self._engine.problem)

    def _demand_equal(self) -> None:
        """Compare one draw with the programs as they are."""
        given = tuple(each[0] for each in self.given(0, 1, seed=1))
        ours = self(self._captured.start, *given)
        noise, rows = self._parted(given)
        engine, own = self._engine, self._draws.noise.of_lane(noise)
        with engine.undone(), transformable(), GivenMinibatches(rows), Given(own, in_place=True):
            engine.move_to(self._params)
            theirs = self._look(engine.programs, engine.problem)
        like = self._captured.start.dtype
        for mine, expected in zip(ours, theirs, strict=True):
            demand_close("what a fresh draw gives", mine.to(like), expected.to(like))
