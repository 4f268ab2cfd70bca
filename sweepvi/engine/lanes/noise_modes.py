"""How the noise of one step is related to that of others."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.lanes.noise import NoiseLayout, Sort
from sweepvi.engine.lanes.sobol import sobol_noise

Mode: TypeAlias = Literal["fresh", "fixed", "antithetic", "sobol"]

TRACEABLE: frozenset[Mode] = frozenset({"fresh", "fixed", "antithetic"})
"""Modes that may be part of a traced step; others are filled outside."""


def noise_of_steps(
    layout: NoiseLayout, mode: Mode, seeds: Tensor, steps: Tensor, stream: int = 0
) -> dict[Sort, Tensor]:
    """The noise of steps, as :meth:`NoiseLayout.filled`; a function of seed, step and place of a draw alone.

    * ``fresh``: steps are independent, so each gradient is unbiased given all before it.
    * ``fixed``: all steps have the draws of step 0, so the objective is the same function in all: a sample-average
      approximation (Giordano, Ingram & Broderick, "Black Box Variational Inference with a Deterministic Objective",
      2024). Its optimum is that of these draws, and away from that of the ELBO by their error: more particles, less.
    * ``antithetic``: every odd step mirrors the step before it (Hammersley & Morton, "A New Monte Carlo Technique:
      Antithetic Variates", 1956). What is odd in the noise cancels between the two.
    * ``sobol``: steps go through a low-discrepancy sequence; see :mod:`sweepvi.engine.lanes.sobol`. The mean over many
      steps has a smaller error than that of independent ones (Buchholz, Wenzel & Mandt, "Quasi-Monte Carlo Variational
      Inference", 2018, who take the points of one step from it).

    In the last two, the draws of each step are distributed as in ``fresh``, so at parameters that do not depend on
    earlier draws each gradient is unbiased. Those of a fit do: they have been moved by earlier steps, whose draws are
    not independent of this step's. That bias is of the order of the step size, and vanishes with it.
    """
    if mode == "sobol":
        assert stream == 0, "there is one sequence"
        return sobol_noise(layout, seeds, steps)
    if mode == "fresh":
        return layout.filled(seeds, steps, stream)
    if mode == "fixed":
        first = layout.filled(seeds, torch.zeros_like(steps[:1]), stream)
        return {sort: numbers.expand(len(steps), -1, -1).contiguous() for sort, numbers in first.items()}
    mirrored = (steps % 2 == 1).view(len(steps), -1, 1)
    found = layout.filled(seeds, steps - steps % 2, stream)
    return {sort: torch.where(mirrored, _mirror(sort, numbers), numbers) for sort, numbers in found.items()}


def _mirror(sort: Sort, numbers: Tensor) -> Tensor:
    # Exact: a uniform is an odd multiple of a power of two.
    return -numbers if sort.kind == "normal" else 1 - numbers
