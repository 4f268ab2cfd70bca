"""Randomised quasi-Monte Carlo over the steps of a fit: step t has the t-th point of a shifted Sobol sequence.

Sobol, "On the Distribution of Points in a Cube and the Approximate Evaluation of Integrals", 1967, in the order of Gray
codes (Antonov & Saleev, 1979), with torch's direction numbers (Joe & Kuo, 2008); randomised by a digital shift
(L'Ecuyer & Lemieux, "Recent Advances in Randomized Quasi-Monte Carlo Methods", 2002; Owen, "Monte Carlo Variance of
Scrambled Net Quadrature", 1997, compares it with others).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sweepvi.engine.lanes.noise import Draw, NoiseLayout, Sort

SHIFT_STREAM = 2
_BITS, _WIDTH = SobolEngine.MAXBIT, 52
"""Of a point as torch's direction numbers give it, and of a shifted one."""


def sobol_noise(layout: NoiseLayout, seeds: Tensor, steps: Tensor) -> dict[Sort, Tensor]:
    """The noise of steps, as :meth:`NoiseLayout.filled`: each number of a step is a dimension of the sequence.

    Normals are the inverse distribution function of uniforms. Numbers beyond the sequence's dimensions
    (``SobolEngine.MAXDIM``), in the order of the layout's rows, are those of :meth:`NoiseLayout.filled`.

    It cannot be traced. A sequence has 2³⁰ points; after them it starts again.

    Args:
        layout: of the draws.
        seeds: int64, shape [K]; each has a shift of its own.
        steps: int64, shape [T] or [T, K].

    """
    left = SobolEngine.MAXDIM
    dims = {}
    for sort, size in layout.taken.items():
        dims[sort] = min(left, size)
        left -= dims[sort]
    if any(dims[sort] < size for sort, size in layout.taken.items()):
        found = layout.filled(seeds, steps)
    else:
        shape = (len(steps), len(seeds))
        found = {
            sort: torch.zeros(*shape, -(-size // sort.per_block) * sort.per_block, dtype=sort.dtype).to(seeds.device)
            for sort, size in layout.taken.items()
        }
    total = sum(dims.values())
    if total:
        numbers = _shifted(total, seeds, steps).split(list(dims.values()), -1)
        for (sort, size), points in zip(dims.items(), numbers, strict=True):
            found[sort][..., :size] = _numbers(sort, points)
    return found


def _shifted(dims: int, seeds: Tensor, steps: Tensor) -> Tensor:
    """Points as integers of 52 bits: shape [T, K, dims]."""
    shifts = NoiseLayout([Draw("uniform", (dims,), torch.float64)])
    [shift] = shifts.filled(seeds, torch.zeros(1, dtype=torch.int64, device=seeds.device), SHIFT_STREAM).values()
    # A uniform is an odd multiple of 2⁻⁵³.
    digits = (shift[..., :dims] * 2.0**_WIDTH).long()
    points = _points(dims, steps) << (_WIDTH - _BITS)
    return (points.unsqueeze(1) if steps.dim() == 1 else points) ^ digits


def _points(dims: int, steps: Tensor) -> Tensor:
    """Points before the shift, as integers of 30 bits: shape [*steps.shape, dims]."""
    directions = _directions(dims).to(steps.device)
    code = steps & (1 << _BITS) - 1
    code = code ^ code >> 1
    found = torch.zeros(*steps.shape, dims, dtype=torch.int64, device=steps.device)
    for bit in range(int(code.max()).bit_length() if code.numel() else 0):
        found ^= directions[:, bit] * (code >> bit & 1).unsqueeze(-1)
    return found


@lru_cache(maxsize=4)
def _directions(dims: int) -> Tensor:
    """Direction numbers: int64, shape [dims, 30]."""
    return SobolEngine(dims).sobolstate.long()


def _numbers(sort: Sort, points: Tensor) -> Tensor:
    """Numbers of a sort, of points of 52 bits."""
    if sort.kind == "normal":
        # In double precision whatever the sort: near 1, a float32 is too coarse for the tail.
        return torch.special.ndtri((points.double() + 0.5) * 2.0**-_WIDTH).to(sort.dtype)
    width = _WIDTH if sort.dtype == torch.float64 else 23
    return ((points >> _WIDTH - width).to(sort.dtype) + 0.5) * 2.0**-width
