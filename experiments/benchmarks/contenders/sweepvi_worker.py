"""sweepvi as a worker: ``sweepvi.fit_many``, the public way in, and nothing beside it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

import sweepvi

from .problems import problem
from .service import serve


def steps(name: str, dtype: str, lanes: int, number: int, tier: str) -> dict[str, Any]:
    """Wall-clock seconds of a whole call of ``lanes`` fits of ``number`` steps, set-up included, scoring left out.

    Args:
        name: of the problem.
        dtype: ``float32`` or ``float64``.
        lanes: fits, which differ by their seeds.
        number: steps of each.
        tier: ``compiled`` or ``traced``.

    """
    settings = [{"seed": lane, "optimizer": {"name": "clipped_adam", "lr": 0.01}} for lane in range(lanes)]
    start = time.perf_counter()
    results = sweepvi.fit_many(
        **problem(name).sweepvi,
        settings=settings,
        steps=number,
        dtype=dtype,
        engine="lanes",
        compile="always" if tier == "compiled" else "never",
        restarts=1,
        score_draws=0,
        checkpoint_every=0,
    )
    seconds = time.perf_counter() - start
    notes = sorted({note for result in results for note in result.notes})
    for result in results:
        if result.engine != "lanes" or (result.compiled_from is None) == (tier == "compiled"):
            raise RuntimeError(f"not {tier}: engine {result.engine}, compiled from {result.compiled_from}; {notes}")
    losses = [float(result.losses[-1]) for result in results]
    return {
        "seconds": seconds,
        "loss": float(np.median(losses)),
        "notes": notes,
    }


def trials(name: str, dtype: str, number: int, length: int, draws: int, compile: str) -> dict[str, Any]:
    """The whole job: fits that differ in their learning rate, log-spaced from 0.001 to 1, each scored.

    Args:
        name: of the problem.
        dtype: ``float32`` or ``float64``.
        number: of fits.
        length: steps of each.
        draws: for the score of each.
        compile: as the engine's setting.

    """
    rates = np.logspace(-3, 0, number).tolist()
    results = sweepvi.fit_many(
        **problem(name).sweepvi,
        settings=[{"optimizer": {"name": "clipped_adam", "lr": rate}} for rate in rates],
        seed=3,
        steps=length,
        dtype=dtype,
        engine="lanes",
        compile=compile,
        restarts=1,
        score_draws=draws,
    )
    finished = [result for result in results if result.status == "finished"]
    return {"finished": len(finished), "best": max(result.elbo for result in finished)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"ready": dict, "steps": steps, "trials": trials})
