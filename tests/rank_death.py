"""``python rank_death.py FOLDER``: a fit, and one whose rank 1 dies; with ``resume``, the rest of the second."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "programs"))

import dying

import sweepvi
from sweepvi.cli import status_of


def fit(folder, resume=False):
    how = {"optimizer": {"name": "adam", "lr": 0.05}, "engine": "eager", "steps": 40, "checkpoint_every": 10}
    draws = {"score_draws": 20, "posterior_draws": 0, "distributed": {"name": "gloo", "timeout": 120}}
    return sweepvi.fit(dying.model, kwargs=dying.data, folder=folder, resume=resume, **how, **draws)


def main(folder, *words):
    torch.set_num_threads(1)
    if not words:
        fit(f"{folder}/whole")
        os.environ |= {"DIE_RANK": "1", "DIE_AT": str(dying.calls + 27)}
    result = fit(f"{folder}/cut", "resume" in words)
    return 0 if result.ranks_agree else 1


if __name__ == "__main__":
    sys.exit(status_of(lambda: main(*sys.argv[1:])))
