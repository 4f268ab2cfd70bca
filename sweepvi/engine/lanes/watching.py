"""Watches of fits that are lanes: they look at fixed steps of a fit's own, whatever the lanes beside it do."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.stopping import Asking, Watch

LEAST = 16
"""Steps that are taken before lanes are looked at again, though one of them is due earlier."""


def chunk_of(cohort: Cohort, watches: Mapping[int, Watch], until: int) -> tuple[int | Tensor, int | None]:
    """Where lanes are to stop, for their watches, and how many steps are to be taken at most: see ``Cohort.advance``.

    Args:
        cohort: the lanes.
        watches: by lane.
        until: no lane takes a step after this one.

    """
    running, done = cohort.running, cohort.done
    due = {lane: watch.next_look for lane, watch in watches.items() if running[lane]}
    nearest = min((step - done[lane] for lane, step in due.items()), default=None)
    if not cohort.own_stops:
        # Lanes that share minibatches stay in step.
        return until, nearest
    stops = torch.full((cohort.lanes,), float(until), dtype=torch.float64)
    for lane, step in due.items():
        stops[lane] = min(float(step), until)
    return stops.to(cohort.device), None if nearest is None else max(nearest, LEAST)


def look(cohort: Cohort, watches: Mapping[int, Watch]) -> list[int]:
    """Let those watches look that are due; lanes whose fits are done stop. Returns those that look at them anew."""
    done, left = cohort.done, cohort.left
    sound = [alive and finite for alive, finite in zip(cohort.alive, cohort.finite, strict=True)]
    due = [lane for lane, watch in watches.items() if sound[lane] and done[lane] == watch.next_look]
    rates = {lane: watches[lane].rate for lane in due}
    results = cohort.results().cpu()
    _answer(cohort, {lane: watches[lane].look(*cohort.forget_means(lane), results[lane]) for lane in due})
    for lane in due:
        cohort.rate[lane] = watches[lane].rate
    stopped = [lane for lane in due if watches[lane].done]
    cohort.stop(stopped)
    over = [lane for lane, watch in watches.items() if sound[lane] and left[lane] == 0 and not watch.done]
    _answer(cohort, {lane: watches[lane].exhaust(done[lane], results[lane]) for lane in over})
    return [lane for lane in due if watches[lane].rate != rates[lane]]


def _answer(cohort: Cohort, asking: Mapping[int, Asking]) -> None:
    """Answer what watches ask, by lane."""
    for lane, asks in asking.items():
        request = next(asks, None)
        while request is not None:
            losses = cohort.losses(lane, request.points, request.first, request.draws).cpu()
            try:
                request = asks.send(losses)
            except StopIteration:
                break
