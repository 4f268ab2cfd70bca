"""Fits that trials are made of: one each, or one for each of several seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweepvi.sweep.protocol import AtRung, Done, Order
from sweepvi.sweep.records import COMPLETE, FAIL, PRUNED
from sweepvi.sweep.rungs import Arrival
from sweepvi.sweep.study import Verdict

SEED_STEP = 0x9E3779B1
"""Between seeds of one trial: far from those of its neighbours."""

FRESH = 2_000_003
"""Seed of the draws on which finalists are scored again."""


@dataclass
class Job:
    """One fit."""

    order: Order
    number: int
    """Of its trial."""
    place: int = 0
    """Which of its seeds."""
    role: str = "trial"
    """``trial``, ``rescored`` or ``reseeded``."""
    sent: float | None = None
    """When a worker was given it."""

    @property
    def key(self) -> int:
        """By which workers call it."""
        return self.order.key

    @property
    def seed(self) -> int:
        """Under which it runs."""
        return int(self.order.config["engine"]["seed"])

    def overdue(self, limit: float | None) -> bool:
        """Whether it has taken longer than so many seconds."""
        return limit is not None and self.sent is not None and time.monotonic() - self.sent > limit


def under_seed(config: Mapping[str, Any], place: int) -> dict[str, Any]:
    """A configuration under the seed number ``place``: 0 is its own."""
    seed = (int(config["engine"]["seed"]) + place * SEED_STEP) % 2**32
    return {**config, "engine": {**config["engine"], "seed": seed}}


@dataclass
class Fits:
    """What the fits of one trial have come to."""

    count: int
    objectives: tuple[str, ...]
    done: dict[int, Done] = field(default_factory=dict)
    rungs: dict[int, dict[int, AtRung]] = field(default_factory=dict)

    def at_rung(self, number: int, place: int, event: AtRung) -> Arrival | None:
        """The trial at a rung, once all its fits are there: their values' mean."""
        here = self.rungs.setdefault(event.rung, {})
        here[place] = event
        if len(here) < self.count:
            return None
        value = sum(one.value for one in here.values()) / self.count
        return Arrival(number, event.rung, event.step, value, sum(one.seconds for one in here.values()))

    def ended(self, place: int, event: Done) -> Verdict | None:
        """The trial's verdict, once there is one: the first fit without a score decides."""
        self.done[place] = event
        if event.elbo is None or None in self.values(event):
            message = event.message or _missing(self.objectives, event)
            return self._verdict(PRUNED, reason="diverged", message=message)
        return self._verdict(COMPLETE) if len(self.done) == self.count else None

    def values(self, event: Done) -> list[float | None]:
        """One fit's objectives."""
        known = {"elbo": event.elbo, "k_hat": event.k_hat, "seconds": event.target_seconds, "heldout": event.heldout}
        return [known[name] for name in self.objectives]

    def failed(self, reason: str, message: str) -> Verdict:
        """The verdict of a trial that could not be run."""
        return self._verdict(FAIL, reason, message)

    def given_up(self, message: str) -> Verdict:
        """The verdict of a trial whose pruner has seen enough of its seeds."""
        return self._verdict(PRUNED, "rung", message)

    def _verdict(self, state: str, reason: str = "", message: str = "") -> Verdict:
        found = list(self.done.values())
        values: tuple[float, ...] = ()
        error = None
        if state == COMPLETE:
            columns = zip(*(self.values(event) for event in found), strict=True)
            values = tuple(sum(one for one in column if one is not None) / len(found) for column in columns)
            if self.objectives[0] in ("elbo", "heldout"):
                errors = [event.elbo_se if self.objectives[0] == "elbo" else event.heldout_se for event in found]
                known = [one for one in errors if one is not None]
                error = math.hypot(*known) / len(known) if known else None
        return Verdict(
            state,
            reason,
            message,
            values=values,
            value_se=error,
            seconds=sum(event.seconds for event in found),
            steps=sum(event.steps for event in found),
            curve=found[0].curve if found else [],
            engine=found[0].engine if found else "",
        )


def _missing(objectives: tuple[str, ...], event: Done) -> str:
    if "seconds" in objectives and event.target_seconds is None:
        return "has not come to sweep.target"
    return "has no score"
