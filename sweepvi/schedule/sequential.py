"""Schedules one after another: semantics of ``torch.optim.lr_scheduler.SequentialLR``.

A milestone is the first step of the next part, whose own time starts at 0 there. Any schedule can be a part; torch
refuses ``ReduceLROnPlateau``. A part that follows the loss sees it only while it is the part in force.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

from torch import Tensor

from sweepvi.keys import Key
from sweepvi.schedule.chain import Chain, Parts
from sweepvi.schedule.cosine import Cosine
from sweepvi.schedule.elementwise import between, increasing, maximum, where
from sweepvi.schedule.schedule import Schedule, State, Time
from sweepvi.schedule.warmup import Warmup


@dataclass(frozen=True)
class Sequential(Chain):
    """One schedule after another, by default a warm-up and then a cosine to the end of the fit."""

    parts: Parts = (Warmup(steps=100), Cosine())
    milestones: Annotated[tuple[int, ...], Key("steps at which the next part begins, increasing", ge=1)] = (100,)

    def conflicts(self) -> dict[str, str]:
        """Milestones increase, and part the parts."""
        problems = super().conflicts()
        if not increasing(self.milestones):
            problems["milestones"] = "must increase from one to the next"
        elif self.parts and len(self.milestones) != len(self.parts) - 1:
            problems["milestones"] = f"must be one fewer than the parts: {len(self.parts) - 1}"
        return problems

    def at(self, time: Time, state: State) -> Any:
        """The factor of the part in force."""
        factors = [
            self.part_factor(place, maximum(time - start, 0), state)
            for place, start in enumerate((0, *self.milestones))
        ]
        return between(time, self.milestones, factors)

    def observe(self, state: State, step: Time, loss: Tensor) -> dict[str, Tensor]:
        """Show the loss to the part in force."""
        time, in_steps = self.time(step), self.steps_per_epoch or 1
        after = dict(state)
        for place, start in enumerate((0, *self.milestones)):
            in_force = time >= start
            if place < len(self.milestones):
                in_force = in_force & (time < self.milestones[place])
            observed = self.part_observed(place, state, maximum(step - start * in_steps, 0), loss)
            after |= {name: where(in_force, value, state[name]) for name, value in observed.items()}
        return after

    def over(self, steps: int) -> Schedule:
        """Open lengths become those to the next milestone; in the last part, to the end of the fit."""
        starts, ends = (0, *self.milestones), (*self.milestones, self.units(steps))
        spans = zip(self.parts, starts, ends, strict=True)
        return replace(self, parts=tuple(part.over(max(1, end - start)) for part, start, end in spans))
