"""sweepvi as a worker: cohorts as the engine runs them, and whole jobs through ``sweepvi.fit_many``."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import torch

import sweepvi
from sweepvi.api import recipe_from
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.engine.lanes.iterates import Iterates
from sweepvi.engine.lanes.lane_fits import LADDER
from sweepvi.engine.lanes.memory import lane_bytes, lanes_in_cache
from sweepvi.engine.trial_run import start as started
from sweepvi.programs import reachable_modules
from sweepvi.settings import LaneSettings

from .problems import problem
from .service import serve

ENDLESS = 10**9
STEADY = {"traced": "never", "compiled": "always"}
COLD = {"traced": "never", "compiled": "auto"}
"""The engine's ``compile`` by tier."""


class Steady:
    """Lanes that go on from request to request."""

    def __init__(self) -> None:
        self._around = ExitStack()

    def start(
        self, name: str, dtype: str, lanes: int, device: str, tier: str, at_once: bool = False, **_: Any
    ) -> dict[str, Any]:
        """Set up, the first chunk of steps among it; replies with ``formula``, the bytes that lanes need by the engine.

        Args:
            name: of the problem.
            dtype: ``float32`` or ``float64``.
            lanes: fits, which differ by their seeds.
            device: as the engine's setting.
            tier: ``compiled`` or ``traced``.
            at_once: all lanes, where the engine would run so many in parts.

        """
        self.close()
        engine = {"name": "lanes", "steps": ENDLESS, "dtype": dtype, "device": device, "compile": STEADY[tier]}
        recipe = recipe_from(**problem(name).sweepvi, **COMMON, engine=engine)
        assert isinstance(recipe.settings, LaneSettings)
        isolation = self._around.enter_context(environment(recipe.settings, reachable_modules(recipe.reach())))
        begun = started(recipe, isolation)
        program = captured(begun)
        first = Entrant.of(recipe, Start.of(begun), begun.optimization, program)
        size = lanes if at_once else min(lanes, max(each for each in LADDER if each <= lanes_in_cache(program)))
        parts = []
        for part in range(0, lanes, size):
            entrants = [replace(first, seed=part + seed) for seed in range(min(size, lanes - part))]
            cohort = Cohort(program, entrants, len(entrants), recipe.settings, total=ENDLESS)
            parts.append((cohort, Iterates(len(entrants), len(program.start))))
        self._next = cycle(parts)
        taken = [self.advance(1)["steps"] for _ in parts]
        stepping = parts[0][0].stepping
        if tier == "compiled" and stepping.compiled_from is None:
            raise RuntimeError(stepping.note)
        return {"formula": lanes * lane_bytes(program, slots=2, steps=taken[0])}

    def close(self) -> None:
        """Leave the fits' environment."""
        self._around.close()

    def advance(self, steps: int) -> dict[str, Any]:
        """Take at least that many steps, whole chunks; all that a fit does at each is done.

        Of more lanes than the engine runs at once, those whose turn it is take them.
        """
        cohort, iterates = next(self._next)
        before = cohort.steps_taken
        while cohort.steps_taken < before + steps:
            cohort.advance(ENDLESS)
            iterates.add(cohort)
        if cohort.device.type == "cuda":
            torch.cuda.synchronize()
        loss = float(cohort.record.chunks[-1].losses[-1].mean())
        return {"steps": cohort.steps_taken - before, "lanes": cohort.lanes, "loss": loss}


def trials(name: str, dtype: str, number: int, length: int, draws: int, tier: str) -> dict[str, Any]:
    """The whole job: fits that differ in their learning rate, log-spaced from 0.001 to 1, each scored.

    Args:
        name: of the problem.
        dtype: ``float32`` or ``float64``.
        number: of fits.
        length: steps of each.
        draws: for the score of each.
        tier: ``compiled`` or ``traced``; the compiled one begins traced, and waits for no compiler.

    """
    rates = np.logspace(-3, 0, number).tolist()
    results = sweepvi.fit_many(
        **problem(name).sweepvi,
        settings=[{"optimizer": {"name": "clipped_adam", "lr": rate}} for rate in rates],
        steps=length,
        dtype=dtype,
        engine="lanes",
        compile=COLD[tier],
        restarts=1,
        score_draws=draws,
    )
    finished = [result for result in results if result.status == "finished"]
    return {"finished": len(finished), "best": max(result.elbo or float("-inf") for result in finished)}


COMMON = {
    "estimator": "trace",
    "optimizer": {"name": "clipped_adam", "lr": 0.01},
    "scheduler": "constant",
    "partition": "single",
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with closing(Steady()) as steady:
        serve({"start": steady.start, "advance": steady.advance, "trials": trials})
