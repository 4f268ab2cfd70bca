"""Pyro as a worker: ``SVI.step`` with ``pyro.optim.ClippedAdam``, one fit at a time, as its documentation has it."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pyro
import pyro.optim
import torch
from pyro.infer.autoguide import AutoNormal, init_to_median
from pyro.infer.svi import SVI
from pyro.infer.trace_elbo import Trace_ELBO

from .problems import INIT_SCALE, problem
from .service import serve

LAST = 64
"""Steps whose losses are averaged: one loss is noise."""


class Fit:
    """A fresh fit, its parameters made."""

    def __init__(self, name: str, dtype: str, device: str = "cpu") -> None:
        kind: torch.dtype = getattr(torch, dtype)
        torch.set_default_dtype(kind)
        if device != "cpu":
            torch.set_default_device(device)
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        case = problem(name)
        made = case.pyro.to(kind, torch.device(device))
        self.kwargs: Any = made.kwargs
        self.vectorizes = case.vectorizes
        self.model: Any = made.model
        if case.own_guide:
            self.model = made.model()
            self.model.to(device, kind)
        own = self.model.guide if case.own_guide else None
        self.guide: Any = own or AutoNormal(self.model, init_loc_fn=init_to_median, init_scale=INIT_SCALE)
        self.svi = SVI(self.model, self.guide, pyro.optim.ClippedAdam({"lr": 0.01}), Trace_ELBO())
        self.svi.evaluate_loss(**self.kwargs)

    def run(self, steps: int) -> list[float]:
        """Take steps; their losses."""
        return [self.svi.step(**self.kwargs) for _ in range(steps)]  # type: ignore[misc]

    def score(self, draws: int) -> None:
        """The ELBO of fresh draws, all at once where the model can."""
        at_once = draws if self.vectorizes else 1
        elbo = Trace_ELBO(num_particles=at_once, vectorize_particles=self.vectorizes)
        with torch.no_grad():
            for _ in range(draws // at_once):
                elbo.loss(self.model, self.guide, **self.kwargs)


class Steady:
    """A fit that goes on from request to request."""

    fit: Fit

    def start(self, name: str, dtype: str, device: str, **_: Any) -> dict[str, Any]:
        """Set up, the first steps among it."""
        self.fit = Fit(name, dtype, device)
        self.fit.run(5)
        return {}

    def advance(self, steps: int) -> dict[str, Any]:
        """Take steps."""
        losses = self.fit.run(steps)
        return {"steps": steps, "lanes": 1, "loss": statistics.fmean(losses[-LAST:])}


def trials(name: str, dtype: str, number: int, length: int, draws: int, **_: Any) -> dict[str, Any]:
    """``each``: seconds of every one of a number of whole trials: ``length`` steps, scored on ``draws`` draws."""
    each: list[float] = []
    while len(each) < number:
        start = time.perf_counter()
        fit = Fit(name, dtype)
        fit.run(length)
        fit.score(draws)
        each.append(time.perf_counter() - start)
    return {"each": each}


if __name__ == "__main__":
    torch.set_num_threads(1)
    steady = Steady()
    serve({"start": steady.start, "advance": steady.advance, "trials": trials})
