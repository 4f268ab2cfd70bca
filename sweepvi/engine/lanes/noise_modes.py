"""How the noise of one step is related to that of others."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.lanes.noise import NoiseLayout, Sort

Mode: TypeAlias = Literal["fresh", "fixed", "antithetic"]


def noise_of_steps(layout: NoiseLayout, mode: Mode, seeds: Tensor, steps: Tensor) -> dict[Sort, Tensor]:
    """The noise of steps, as :meth:`NoiseLayout.filled`; a function of seed, step and place of a draw alone.

    * ``fresh``: steps are independent.
    * ``fixed``: all steps have the draws of step 0, so the objective is the same function in all: a sample-average
      approximation (Giordano, Ingram & Broderick, "Black Box Variational Inference with a Deterministic Objective",
      2024). Its optimum is that of these draws.
    * ``antithetic``: every odd step mirrors the step before it (Hammersley & Morton, "A New Monte Carlo Technique:
      Antithetic Variates", 1956). Each step's draws are distributed as before, so its gradient is as unbiased; what
      is odd in the noise cancels between two steps.
    """
    if mode == "fresh":
        return layout.filled(seeds, steps)
    if mode == "fixed":
        return layout.filled(seeds, torch.zeros_like(steps))
    mirrored = (steps % 2 == 1).view(len(steps), -1, 1)
    found = layout.filled(seeds, steps - steps % 2)
    return {sort: torch.where(mirrored, _mirror(sort, numbers), numbers) for sort, numbers in found.items()}


def _mirror(sort: Sort, numbers: Tensor) -> Tensor:
    return -numbers if sort.kind == "normal" else 1 - numbers
