"""Pyro as a worker: ``SVI.step`` with ``pyro.optim.ClippedAdam``, one fit at a time, as its documentation has it."""

from __future__ import annotations

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


class Fit:
    """A fresh fit, its parameters made."""

    def __init__(self, name: str, dtype: str) -> None:
        kind: torch.dtype = getattr(torch, dtype)
        torch.set_default_dtype(kind)
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        case = problem(name)
        made = case.pyro.to(kind, torch.device("cpu"))
        self.kwargs: Any = made.kwargs
        self.model: Any = made.model() if case.own_guide else made.model
        if case.own_guide:
            self.model.to(kind)
            self.guide: Any = self.model.guide
        else:
            self.guide = AutoNormal(self.model, init_loc_fn=init_to_median, init_scale=INIT_SCALE)
        self.vectorizes = case.vectorizes
        self.svi = SVI(self.model, self.guide, pyro.optim.ClippedAdam({"lr": 0.01}), Trace_ELBO())
        self.svi.evaluate_loss(**self.kwargs)

    def run(self, steps: int) -> float:
        """Take steps; the last loss."""
        return [self.svi.step(**self.kwargs) for _ in range(steps)][-1]  # type: ignore[return-value]

    def score(self, draws: int) -> None:
        """The ELBO of fresh draws, all at once where the model can."""
        with torch.no_grad():
            if self.vectorizes:
                Trace_ELBO(num_particles=draws, vectorize_particles=True).loss(self.model, self.guide, **self.kwargs)
            else:
                for _ in range(draws):
                    self.svi.loss(self.model, self.guide, **self.kwargs)


def steps(name: str, dtype: str, number: int) -> dict[str, Any]:
    """Wall-clock seconds of a whole fit of ``number`` steps, set-up included."""
    start = time.perf_counter()
    loss = Fit(name, dtype).run(number)
    return {"seconds": time.perf_counter() - start, "loss": loss}


def trial(name: str, dtype: str, length: int, draws: int) -> dict[str, Any]:
    """Seconds of a trial's parts: ``setup``, ``step`` (one of ``length``), ``score`` (on ``draws`` draws)."""
    start = time.perf_counter()
    fit = Fit(name, dtype)
    made = time.perf_counter()
    fit.run(length)
    stepped = time.perf_counter()
    fit.score(draws)
    scored = time.perf_counter()
    return {"setup": made - start, "step": (stepped - made) / length, "score": scored - stepped}


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"ready": dict, "steps": steps, "trial": trial})
