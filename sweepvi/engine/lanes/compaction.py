"""Compaction: lanes that still run go on in a smaller cohort, where that pays.

Lanes that have ended cost as much as others until then. A change costs a new trace of the step, which takes as long as
some thousand steps of a small program, and as few of a large one. Whether it pays is a function of the program, the
number of lanes and the steps left, and not of a clock: a fit's numbers must not depend on how fast a machine is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch.utils import _pytree as pytree

from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.graph import StepGraph
from sweepvi.engine.lanes.update import Plan

TRACING: Mapping[str, int] = {"cpu": 1 << 23, "cuda": 1 << 30}
"""By type of device: numbers that a step computes in the time that tracing one operation takes, 3 ms.

On one core, a number takes 0.2 to 0.7 ns in steps of the shipped models; see the lanes' benchmarks.
"""


def size_to_go_on(graph: StepGraph, size: int, left: Sequence[int], sizes: Sequence[int], device: torch.device) -> int:
    """The number of lanes to go on with: ``size``, or one of ``sizes`` if less work is left that way.

    The work is that of all steps left, and of changes later on: they are foreseen, divergences are not.

    Args:
        graph: the step, traced for ``size`` lanes.
        size: lanes there are.
        left: steps left of each lane that runs; there is one at least.
        sizes: numbers of lanes that a cohort may have.
        device: that computes.

    """
    return planned(size, left, sizes, graph.numbers / size, graph.node_count * TRACING[device.type])


def planned(size: int, left: Sequence[int], sizes: Sequence[int], lane_step: float, change: float) -> int:
    """The number of lanes to go on with, if a step of a lane costs ``lane_step``, and a change of size ``change``."""
    ends = sorted(left, reverse=True)

    @cache
    def best(size: int, now: int) -> tuple[float, int]:
        """What is to be paid after ``now`` steps, and the size to go on with."""
        found = lane_step * size * (ends[0] - now), size
        for smaller in sizes:
            # Not before the others have ended.
            at = max(now, ends[smaller] if smaller < len(ends) else 0)
            if smaller < size and at < ends[0]:
                cost = lane_step * size * (at - now) + change + best(smaller, at)[0]
                found = min(found, (cost, smaller if at == now else size), key=lambda choice: choice[0])
        return found

    return best(size, 0)[1]


def moved(
    cohort: Cohort, lanes: Sequence[int], size: int, entering: Sequence[Entrant] = (), later: Sequence[Plan] = ()
) -> Cohort:
    """A cohort of ``size`` lanes, the first of which go on from where ``lanes`` stand.

    Args:
        cohort: that it is made of.
        lanes: of the fits that go on.
        size: of the new cohort.
        entering: fits in the lanes after these; the rest stay empty.
        later: plans of forms that lanes may have later.

    """
    staying = [entrant for lane in lanes if (entrant := cohort.entrants[lane]) is not None]
    entrants = [*staying, *entering]
    kept = cohort.settings, cohort.total, later, cohort.every, cohort.together
    found = Cohort(cohort.captured, entrants, size, *kept)
    # Optimizers that no lane has any more are gone; those that only those have which enter are at their start.
    common = [form for form in found.update.forms if form in cohort.update.forms]
    forms = [cohort.update.forms.index(form) for form in common]
    mine = [found.update.forms.index(form) for form in common]
    index = torch.tensor(list(lanes), dtype=torch.long, device=cohort.device)
    places = torch.arange(len(lanes), device=cohort.device)
    state = pytree.tree_map(
        lambda own, other: own.index_copy(0, places, other.index_select(0, index)),
        found.state.of_forms(mine),
        cohort.state.of_forms(forms),
    )
    slots = [*found.state.slots]
    for place, own in zip(mine, state.slots, strict=True):
        slots[place] = own
    found.state = replace(state, slots=slots)
    for place, form in zip(mine, forms, strict=True):
        for schedules, before in zip(found.schedules[place], cohort.schedules[form], strict=True):
            for seat, lane in enumerate(lanes):
                schedules.states[seat] = before.states[lane]
    found.rate[places] = cohort.rate[index]
    for seat, lane in enumerate(lanes):
        found.record.start(seat, cohort.course(lane))
    found.steps_taken = cohort.steps_taken
    cohort.stepping.close()
    return found
