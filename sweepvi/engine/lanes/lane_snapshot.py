"""The courses of lanes, and what watches have seen of them, in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.lanes.record import Course
from sweepvi.stopping import Watch


def put_courses(snapshot: Snapshot, courses: Sequence[Course]) -> None:
    """Add what lanes have recorded."""
    tensors = {}
    for place, course in enumerate(courses):
        tensors[f"{place}/losses"] = course.losses
        tensors |= {f"{place}/rates/{label}": rates for label, rates in course.rates.items()}
    snapshot.put("courses", tensors, [course.skipped for course in courses])


def courses_of(snapshot: Snapshot) -> list[Course]:
    """What :func:`put_courses` has added; ``CheckpointError`` if there is none."""
    tensors, skipped = snapshot.get("courses")
    courses = []
    for place, own in enumerate(skipped):
        prefix = f"{place}/rates/"
        rates = {name.removeprefix(prefix): rate for name, rate in tensors.items() if name.startswith(prefix)}
        courses.append(Course(tensors[f"{place}/losses"], rates, own))
    return courses


def put_watches(snapshot: Snapshot, watches: Sequence[Watch | None]) -> None:
    """Add what watches know, if there are any."""
    states = {place: watch.state() for place, watch in enumerate(watches) if watch is not None}
    tensors = {f"{place}/{name}": value for place, (own, _) in states.items() for name, value in own.items()}
    if states:
        snapshot.put("watches", tensors, [meta for _, meta in states.values()])


def load_watches(snapshot: Snapshot, watches: Sequence[Watch | None]) -> None:
    """Put watches into the state of :func:`put_watches`; ``CheckpointError`` if there is none."""
    if not any(watches):
        return
    tensors, metas = snapshot.get("watches")
    for place, (watch, meta) in enumerate(zip(watches, metas, strict=True)):
        prefix = f"{place}/"
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if watch is not None:
            watch.load(own, meta)
