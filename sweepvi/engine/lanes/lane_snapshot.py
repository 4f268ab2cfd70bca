"""The courses of lanes in a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.lanes.record import Course


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
