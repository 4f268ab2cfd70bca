"""Draw a sweep's trials by number and by step size, as docs/sweep_radon.png.

    python -m sweepvi -m optimizer=clipped_adam,dct_adam,adagrad_rmsprop 'optimizer.lr=tag(log,interval(1e-4,1e-1))' \\
        sweep.n_trials=500 hydra.sweep.dir=sweeps/radon
    python experiments/figures/sweep.py sweeps/radon
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sweepvi.sweep.records import StudyRecord, TrialRecord

COLORS = {"clipped_adam": "#1f77b4", "dct_adam": "#ff7f0e", "adagrad_rmsprop": "#2ca02c"}
WORST = 15.0
"""Nats below the best that are shown."""


def main() -> None:
    """Read the sweep folder that the command line names, and draw it."""
    record = StudyRecord.read(Path(sys.argv[1]))
    best = record.best
    assert best is not None
    assert best.value is not None
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    for name, color in COLORS.items():
        own = [trial for trial in record.scored if trial.params["optimizer"] == name]
        values = np.clip([trial.value or 0.0 for trial in own], best.value - WORST, None)
        left.plot([trial.number for trial in own], values, ".", color=color, ms=4, label=name)
        right.semilogx([_rate(trial) for trial in own], values, ".", color=color, ms=4)
    pruned = [trial.number for trial in record.trials if trial.state == "PRUNED"]
    left.plot(pruned, np.full(len(pruned), best.value - WORST - 1.2), "|", color="0.6", ms=5, label="pruned")
    left.set(xlabel="trial", ylabel="ELBO (nats)", ylim=(best.value - WORST - 2.5, best.value + 1.5))
    right.set(xlabel="step size (optimizer.lr, optimizer.eta)")
    for axes in (left, right):
        axes.axhline(best.value, color="0.8", lw=0.8, zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8, loc="center right")
    figure.savefig(Path(__file__).parents[2] / "docs" / "sweep_radon.png", dpi=110)


def _rate(trial: TrialRecord) -> float:
    return next(value for name, value in trial.params.items() if name.startswith(("optimizer.lr", "optimizer.eta")))


if __name__ == "__main__":
    main()
