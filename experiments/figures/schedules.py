"""Draw every schedule at its defaults over a fit of 2,000 steps, as docs/schedules.png."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch

from sweepvi import registry

mpl.use("Agg")
from matplotlib import pyplot as plt

STEPS = 2000
SKIPPED = ("torch",)
COLUMNS = 4


def factors(name: str) -> list[float]:
    """The factor at every step; for a schedule that follows the loss, under one that falls to 500 and stays there."""
    schedule = registry.build("scheduler", {"name": name}).over(STEPS)
    state, made = schedule.init(), []
    for step in range(STEPS):
        made.append(float(schedule.factor(step, state)))
        loss = torch.tensor(max(500.0, 1500.0 - 2 * step), dtype=torch.float64)
        state = schedule.observe(state, step, loss)
    return made


def main() -> None:
    """Draw, and save beside the documentation."""
    names = [name for name in registry.names("scheduler") if name not in SKIPPED]
    rows = -(-len(names) // COLUMNS)
    figure, axes = plt.subplots(
        rows, COLUMNS, figsize=(11, 1.75 * rows), sharex=True, sharey=True, layout="constrained"
    )
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot(factors(name), color="#1f4e79", linewidth=1.5)
        axis.set_title(name, fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("factor on optimizer.lr", fontsize=10)
    figure.savefig(Path(__file__).parents[2] / "docs" / "schedules.png", dpi=110)


if __name__ == "__main__":
    main()
