"""DCTAdam beside Adam and ClippedAdam on a wandering level: the shipped uk_drivers model, with equal numbers of steps.

::

    python experiments/studies/time_series/study.py
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import sweepvi

DCT = {"name": "dct_adam", "time_dims": {"*.locs.level*": -1}}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"name": "adam"},
    "ClippedAdam": {"name": "clipped_adam"},
    "DCTAdam": DCT,
    "DCTAdam, frequency_power 1": {**DCT, "frequency_power": 1.0},
    "ClippedAdam, clip_norm 100": {"name": "clipped_adam", "clip_norm": 100.0},
    "DCTAdam, clip_norm 100": {**DCT, "clip_norm": 100.0},
    "DCTAdam, clip_norm 100, frequency_power 1": {**DCT, "clip_norm": 100.0, "frequency_power": 1.0},
}


def elbos(optimizer: dict[str, Any], lr: float, centered: bool, steps: int, seeds: int) -> list[float]:
    """The final ELBO of a fit for each seed; minus infinity if it did not finish."""
    found = []
    for seed in range(seeds):
        result = sweepvi.fit(
            {"name": "uk_drivers", "centered": centered},
            optimizer={**optimizer, "lr": lr},
            scheduler="cosine",
            engine="eager",
            steps=steps,
            seed=seed,
        )
        found.append(float("-inf") if result.elbo is None else result.elbo)
    return found


def table(options: argparse.Namespace, centered: bool, steps: int) -> None:
    """Print a table: an optimizer a line, a step size a column, median and range over seeds."""
    form = "the level itself is sampled" if centered else "its standardised moves are sampled"
    print(f"\n{steps:,} steps; {form}\n\n| optimizer |" + "".join(f" lr {lr:g} |" for lr in options.lr))
    print("|---|" + "--:|" * len(options.lr))
    for label, optimizer in OPTIMIZERS.items():
        cells = []
        for lr in options.lr:
            found = elbos(optimizer, lr, centered, steps, options.seeds)
            cells.append(f" {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}) |")
        print(f"| {label} |" + "".join(cells), flush=True)


def main() -> None:
    """Print the tables of both forms of the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--lr", type=float, nargs="+", default=[0.03, 0.1, 0.3])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for steps in options.steps:
        for centered in (False, True):
            table(options, centered, steps)


if __name__ == "__main__":
    main()
