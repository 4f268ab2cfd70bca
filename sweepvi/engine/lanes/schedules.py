"""The schedules of lanes: factors on step sizes, chunk by chunk."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from sweepvi.engine.lanes.update import Plan
from sweepvi.schedule import Schedule


class Schedules:
    """One group's schedule in every lane of one form.

    Args:
        schedules: of each lane.
        device: of the factors.

    """

    def __init__(self, schedules: Sequence[Schedule], device: torch.device) -> None:
        self.device = device
        self._schedules = list(schedules)
        self._groups: list[tuple[Schedule, list[int]]] | None = None
        self.states = [schedule.init() for schedule in schedules]
        """What schedules that follow the loss remember, lane by lane; empty for others."""

    def put(self, lane: int, schedule: Schedule) -> None:
        """Let a lane have another schedule, at its start."""
        self._schedules[lane], self._groups = schedule, None
        self.states[lane] = schedule.init()

    @property
    def follow_the_loss(self) -> bool:
        """Whether a factor depends on the losses before it, so that it is known only when its step comes."""
        return any(self.states)

    def factors(self, done: Tensor) -> Tensor:
        """The factors of the updates after ``done`` steps: float64, of its shape [T, K]."""
        found = torch.ones_like(done)
        for schedule, lanes in self._distinct():
            state = self.states[lanes[0]]
            columns = torch.tensor(lanes, device=self.device)
            if state:
                each = [float(schedule.factor(int(done[0, k]), self.states[k])) for k in lanes]
                values = torch.tensor([each], dtype=torch.float64, device=self.device)
            else:
                values = _of_steps(schedule, done[:, columns])
            found[:, columns] = torch.as_tensor(values, dtype=torch.float64, device=self.device).expand(
                len(done), len(lanes)
            )
        return found

    def observe(self, lane: int, done: int, loss: float) -> None:
        """Let a lane's schedule see the loss of the step after ``done`` steps; NaN if it was left out."""
        if self.states[lane]:
            seen = torch.tensor(loss, dtype=torch.float64)
            self.states[lane] = self._schedules[lane].observe(self.states[lane], done, seen)

    def _distinct(self) -> list[tuple[Schedule, list[int]]]:
        """Schedules that are equal, with their lanes."""
        if self._groups is None:
            found: dict[Hashable, tuple[Schedule, list[int]]] = {}
            for lane, schedule in enumerate(self._schedules):
                found.setdefault(_key(schedule), (schedule, []))[1].append(lane)
            self._groups = list(found.values())
        return self._groups


def _key(schedule: Schedule) -> Hashable:
    """Equal for schedules that are equal; one that cannot be compared by its hash is equal to itself only."""
    try:
        hash(schedule)
    except TypeError:
        return id(schedule)
    return schedule


def schedules_of(plans: Sequence[Plan], model: Plan, of_form: Sequence[bool], device: torch.device) -> list[Schedules]:
    """By group of a form, the schedules of all lanes; those of other forms have those of ``model``, unread."""
    rows = [plan if own else model for plan, own in zip(plans, of_form, strict=True)]
    return [Schedules([row[group].schedule for row in rows], device) for group in range(len(model))]


def _of_steps(schedule: Schedule, done: Tensor) -> Tensor:
    try:
        return torch.as_tensor(schedule.factor(done), dtype=torch.float64, device=done.device)
    except TypeError:
        # Torch's own schedulers count steps one by one.
        known = {step: float(schedule.factor(int(step))) for step in sorted(set(done.flatten().tolist()))}
        values = [known[step] for step in done.flatten().tolist()]
        return torch.tensor(values, dtype=torch.float64, device=done.device).view(done.shape)
