"""A study that several agents run, on one machine or many: see :mod:`sweepvi.sweep.shared_log` for how they agree."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from sweepvi.errors import SweepviError
from sweepvi.sweep.plan import Plan
from sweepvi.sweep.records import RUNNING, StudyRecord, TrialRecord
from sweepvi.sweep.rungs import Arrival
from sweepvi.sweep.sampling import PRESCRIBED, sampler_of
from sweepvi.sweep.shared_log import Events, SharedLog, UnreachableError
from sweepvi.sweep.study import Study, Verdict

BETWEEN = 0.25
"""Seconds between turns of an agent, at least."""


class SharedStudy(Study):
    """See :class:`Study`. Every agent has all of it in memory, and changes it in its turn only.

    A trial belongs to the agent that has asked for it. One whose agent is dead is asked for again, under its number:
    there is never a second one of it.
    """

    log: SharedLog

    def __init__(self, plan: Plan, log: SharedLog) -> None:
        self._lost: set[int] = set()
        self._turned = 0.0
        self._place = 0
        super().__init__(plan, log)

    @property
    def share(self) -> int:
        """See :attr:`Study.share`: half of what an agent would get if all got the same, so that the fast get more."""
        return max(1, (self.total - self.asked) // (2 * self.log.agents))

    def is_mine(self, trial: TrialRecord) -> bool:
        """Whether this agent runs a trial."""
        return trial.agent == self.log.agent

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """See :meth:`Study.turn`; false between turns, and where the database does not answer."""
        with ExitStack() as stack:
            if time.monotonic() - self._turned < BETWEEN:
                yield False
                return
            # Pauses are between the end of one turn and the beginning of the next.
            stack.callback(self._note_time)
            try:
                events = stack.enter_context(self.log.turn())
            except UnreachableError as error:
                self.trouble = f"{self.log.where} does not answer: {error}"
                yield False
                return
            self.trouble = ""
            self._hear(events)
            yield True

    def wait_for_turn(self) -> None:
        """See :meth:`Study.wait_for_turn`."""
        time.sleep(max(0.0, self._turned + BETWEEN - time.monotonic()))

    def _note_time(self) -> None:
        self._turned = time.monotonic()

    def lost(self) -> list[int]:
        """See :meth:`Study.lost`."""
        found, self._lost = sorted(self._lost), set()
        return found

    def ask(self) -> TrialRecord | None:
        """A trial whose agent is dead, or a new one; None if there is none."""
        for trial in self.record.trials:
            if trial.state == RUNNING and not self.is_mine(trial) and not self.log.is_alive(trial.agent):
                event = {"number": trial.number, "params": trial.params, "distributions": trial.distributions}
                self._note({"event": "asked", **event})
                return self.record.trials[trial.number]
        return super().ask()

    def arrived(self, arrival: Arrival) -> None:
        """A trial has reached a rung: all agents are told, because whoever is next may judge it."""
        super().arrived(arrival)
        self._note({"event": "arrived", **vars(arrival)})

    def over(self, number: int, verdict: Verdict) -> None:
        """A trial of this agent's has ended."""
        if self.is_mine(self.record.trials[number]):
            super().over(number, verdict)

    def may_score(self) -> bool:
        """See :meth:`Study.may_score`: the first who asks may, and if it dies the next."""
        scorer = self.record.scorer
        if scorer != self.log.agent and (not scorer or not self.log.is_alive(scorer)):
            self._note({"event": "scoring", "agent": self.log.agent})
        return self.record.scorer == self.log.agent

    def _note(self, event: Mapping[str, Any]) -> None:
        super()._note({**event, "agent": self.log.agent} if event["event"] == "asked" else event)

    def _started(self) -> StudyRecord:
        try:
            return self._joined()
        except UnreachableError as error:
            raise SweepviError(f"{self.log.where} does not answer: {error}") from error

    def _joined(self) -> StudyRecord:
        with self.log.turn() as events:
            self.record = StudyRecord.of(events[:1] or [self._begin()], self.log.where)
            self._demand_same(self.record)
            self._optuna.sampler = sampler_of(self._sampler if self._repeats else "random", self.plan.settings.seed, 0)
            self._hear(events[1:])
            self._place = len(self.record.agents)
            self._note({"event": "joined", "agent": self.log.agent})
            return self.record

    @property
    def _entropy(self) -> str:
        # Agents that know the same must not propose the same.
        return f"{self._place}" if self._place else ""

    @property
    def _repeats(self) -> bool:
        return self._sampler in PRESCRIBED

    def _hear(self, events: Events) -> None:
        """Take in what others have written."""
        for event in events:
            hear = _HEARD.get(event["event"])
            if hear is not None:
                hear(self, event)
            self.record.add(event)

    def _hear_asked(self, event: Mapping[str, Any]) -> None:
        number = event["number"]
        if number < self.asked:
            # An agent that was believed dead, and was not: the trial is another's now.
            self._verdicts.pop(number, None)
            self._lost.add(number)
            return
        known = self._prescribed[number] if number < len(self._prescribed) else None
        self._propose(known if self._repeats else event["params"])

    def _hear_arrived(self, event: Mapping[str, Any]) -> None:
        known = {key: value for key, value in event.items() if key != "event"}
        self._rungs.arrive(Arrival(**{**known, "value": _number(event["value"])}))

    def _hear_rung(self, event: Mapping[str, Any]) -> None:
        number = event["number"]
        if self.pruner == "wilcoxon":
            self._handles[number].report(_number(event["value"]), event["step"])
        elif self._rungs.count:
            self._judged(Arrival(number, event["rung"], event["step"], _number(event["value"])), event["pruned"])

    def _hear_ended(self, event: Mapping[str, Any]) -> None:
        number = event["number"]
        self._verdicts.pop(number, None)
        self._rungs.leave(number)
        self._tell(number, Verdict(event["state"], values=tuple(event["values"] or ())))
        self._lost.add(number)


def _number(value: float | None) -> float:
    """JSON has no number for what is not finite."""
    return math.nan if value is None else value


_HEARD = {
    "asked": SharedStudy._hear_asked,
    "arrived": SharedStudy._hear_arrived,
    "rung": SharedStudy._hear_rung,
    "ended": SharedStudy._hear_ended,
}
