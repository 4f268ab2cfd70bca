"""Why lanes have diverged, in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sweepvi.engine.lanes.cohort import Cohort


def why_not_finite(cohort: Cohort, lanes: Sequence[int]) -> dict[int, str]:
    """Of lanes that have diverged: at which step, and in which parameters."""
    if not lanes:
        return {}
    gradients, losses = cohort.gradients()
    return {lane: _said(cohort, lane, gradients[lane], float(losses[lane])) for lane in lanes}


def _said(cohort: Cohort, lane: int, gradient: Tensor, loss: float) -> str:
    params = cohort.captured.unpacked(cohort.state.arena[lane])
    done = cohort.done[lane]
    broken = _not_finite(params)
    if broken:
        return f"after step {done}: non-finite parameter {', '.join(broken)}"
    names = _not_finite(cohort.captured.unpacked(gradient))
    sizes = ((float(param.abs().max()) if param.numel() else 0.0, name) for name, param in params.items())
    size, largest = max(sizes)
    where = f"all parameters are finite, the largest {largest} with {size:.3g} (unconstrained)"
    where = f"non-finite gradient of {', '.join(names)}" if names else where
    if not torch.isfinite(torch.tensor(loss)):
        where = f"loss is {loss}; {where}"
    return f"step {done + 1}: {where}"


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
