"""Why lanes have diverged, in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sweepvi.engine.lanes.cohort import Cohort


def why_not_finite(cohort: Cohort, lanes: Sequence[int]) -> dict[int, str]:
    """Of lanes that have diverged: at which step, and in which parameters."""
    unknown = [lane for lane in lanes if lane not in cohort.reasons]
    if not unknown:
        return {lane: cohort.reasons[lane] for lane in lanes}
    gradients, losses = cohort.gradients()
    found = {lane: _said(cohort, lane, gradients[lane], float(losses[lane])) for lane in unknown}
    return {lane: cohort.reasons.get(lane) or found[lane] for lane in lanes}


def note_reasons(cohort: Cohort, lanes: Sequence[int]) -> None:
    """Note why lanes have diverged, on the ranks where something was not finite; all ranks call it."""
    if not lanes:
        return
    gradients, losses = cohort.gradients()
    own = {lane: _seen(cohort, lane, gradients[lane], float(losses[lane])) for lane in lanes}
    of_ranks = cohort.together.ranks.gathered(own)
    for lane in lanes:
        said = "; ".join(f"rank {rank}: {seen[lane]}" for rank, seen in enumerate(of_ranks) if seen[lane])
        said = said or "the average of the ranks' gradients is not finite"
        cohort.reasons[lane] = f"step {cohort.done[lane] + 1}: {said}"


def _said(cohort: Cohort, lane: int, gradient: Tensor, loss: float) -> str:
    done = cohort.done[lane]
    broken = _not_finite(cohort.captured.unpacked(cohort.state.arena[lane]))
    if broken:
        return f"after step {done}: non-finite parameter {', '.join(broken)}"
    return f"step {done + 1}: {_seen(cohort, lane, gradient, loss) or _largest(cohort, lane)}"


def _seen(cohort: Cohort, lane: int, gradient: Tensor, loss: float) -> str:
    """What is not finite of a gradient and a loss; empty if they are."""
    names = _not_finite(cohort.captured.unpacked(gradient))
    of_loss = not torch.isfinite(torch.tensor(loss))
    where = f"non-finite gradient of {', '.join(names)}" if names else _largest(cohort, lane) if of_loss else ""
    return f"loss is {loss}; {where}" if of_loss else where


def _largest(cohort: Cohort, lane: int) -> str:
    params = cohort.captured.unpacked(cohort.state.arena[lane])
    size, name = max((float(param.abs().max()) if param.numel() else 0.0, name) for name, param in params.items())
    return f"all parameters are finite, the largest {name} with {size:.3g} (unconstrained)"


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
