"""What fits in lanes have come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sweepvi.engine.fresh_draws import FreshDraws
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.failure import why_not_finite
from sweepvi.engine.lanes.iterates import Iterates
from sweepvi.engine.lanes.record import Course
from sweepvi.engine.outcome import Status


@dataclass
class Ended:
    """A fit that no lane runs any more."""

    seed: int
    status: Status
    message: str
    steps: int
    course: Course
    row: Tensor
    """Parameters where it stands, shape [D]."""
    result: Tensor
    """What the optimizer has found, shape [D]."""
    tensors: dict[str, Tensor]
    """The lane's whole state; empty if it has never begun."""
    iterates: tuple[Tensor, Tensor, int]
    """Mean and variance of the parameters over the second half, float64, shape [D]; and of how many."""
    log_weights: Tensor
    fresh: FreshDraws | None = None
    """Of the best restart."""
    stopped: str = ""
    """Why the fit was done when it ended, if it was watched."""


def looked_at(cohort: Cohort, iterates: Iterates, lanes: Sequence[int]) -> dict[int, Ended]:
    """What the fits in these lanes have come to so far; those whose parameters are not finite take no further step."""
    running, done, results = cohort.running, cohort.done, cohort.results()
    sound = [alive and finite for alive, finite in zip(cohort.alive, cohort.finite, strict=True)]
    broken = [lane for lane in lanes if not sound[lane]]
    why = why_not_finite(cohort, broken)
    cohort.kill(broken)
    return {
        lane: Ended(
            seed=int(cohort.seeds[lane]),
            status="diverged" if lane in why else "interrupted" if running[lane] else "finished",
            message=why.get(lane, f"interrupted after step {done[lane]}" if running[lane] else ""),
            steps=done[lane],
            course=cohort.course(lane),
            row=cohort.state.arena[lane].clone(),
            result=results[lane].clone(),
            tensors=cohort.tensors_of(lane) | iterates.tensors_of(lane),
            iterates=iterates.of(lane),
            log_weights=torch.empty(0, dtype=torch.float64, device="cpu"),
        )
        for lane in lanes
    }


def waiting(entrant: Entrant, tensors: Mapping[str, Tensor], course: Course | None) -> Ended:
    """A fit that has no lane yet; with its state, if it has begun before."""
    nothing = torch.empty(0, dtype=torch.float64, device="cpu")
    none = torch.full(entrant.row.shape, float("nan"), dtype=torch.float64, device="cpu")
    course = course or Course(nothing, {group.label: nothing for group in entrant.plan}, [])
    return Ended(
        seed=entrant.seed,
        status="interrupted",
        message="interrupted before it began",
        steps=len(course.losses),
        course=course,
        row=entrant.row,
        result=entrant.row,
        tensors=dict(tensors),
        iterates=(none, none, 0),
        log_weights=nothing,
    )
