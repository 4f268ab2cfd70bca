"""``python rank_death.py FOLDER ENGINE``: a fit, and one whose rank 1 dies; with ``resume``, the rest of the second."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "programs"))

import dying

import sweepvi
from sweepvi.cli import status_of
from sweepvi.distributed import launched
from sweepvi.engine.lanes.cohort import Cohort

STEPS = {"eager": {"steps": 40, "checkpoint_every": 10}, "lanes": {"steps": 200, "checkpoint_every": 50}}


def fit(folder, engine, resume=False):
    how = {"optimizer": {"name": "adam", "lr": 0.05}, "engine": engine, **STEPS[engine]}
    draws = {"score_draws": 20, "posterior_draws": 0, "distributed": {"name": "gloo", "timeout": 120}}
    return sweepvi.fit(dying.model, kwargs=dying.data, folder=folder, resume=resume, **how, **draws)


def die_in_chunk(number):
    """Let rank 1 die inside the chunk of steps of this number, before it has averaged anything."""
    if launched().rank != 1:
        return
    advance, chunks = Cohort.advance, iter(range(number + 1))

    def advance_or_die(*args, **kwargs):
        if next(chunks) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        advance(*args, **kwargs)

    Cohort.advance = advance_or_die


def main(folder, engine, *words):
    torch.set_num_threads(1)
    if not words:
        fit(f"{folder}/whole", engine)
        os.environ |= {"DIE_RANK": "1", "DIE_AT": str(dying.calls + 27)} if engine == "eager" else {}
        if engine == "lanes":
            die_in_chunk(3)
    result = fit(f"{folder}/cut", engine, "resume" in words)
    return 0 if result.ranks_agree else 1


if __name__ == "__main__":
    sys.exit(status_of(lambda: main(*sys.argv[1:])))
