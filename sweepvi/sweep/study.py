"""A study in progress: Optuna's, in memory, and the log from which it can be made again at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import TrialState

from sweepvi.errors import ConfigError, Problem
from sweepvi.sweep import pruning
from sweepvi.sweep.log import EventLog
from sweepvi.sweep.plan import Plan
from sweepvi.sweep.records import COMPLETE, FAIL, PRUNED, VERSION, Direction, Rung, StudyRecord, TrialRecord
from sweepvi.sweep.rungs import Arrival, Rungs
from sweepvi.sweep.sampling import PRESCRIBED, sampler_of, suggest

DIRECTIONS: Mapping[str, Direction] = {
    "elbo": "maximize",
    "heldout": "maximize",
    "k_hat": "minimize",
    "seconds": "minimize",
}
"""Which way each objective is better."""

ABSURD = 1e15
"""Values of at least this size are no scores: sums of log densities that are right do not come near."""


@dataclass(frozen=True)
class Verdict:
    """What a finished trial has come to."""

    state: str
    reason: str = ""
    message: str = ""
    values: tuple[float, ...] = ()
    value_se: float | None = None
    seconds: float = 0.0
    steps: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    engine: str = ""


class Study:
    """Asks for trials, hears of them, and says which are to be pruned.

    Args:
        plan: what is searched.
        log: of the sweep's folder, entered.

    Raises:
        ConfigError: the log is that of another study.
        SweepviError: it is damaged, or of another version.

    """

    def __init__(self, plan: Plan, log: EventLog) -> None:
        self.plan, self.log = plan, log
        self.sampler_seconds = 0.0
        """Time that proposing trials took."""
        settings = plan.settings
        self.pruner = pruning.chosen(settings, plan.grid)
        self.directions: list[Direction] = [DIRECTIONS[objective] for objective in settings.objective]
        with _quiet():
            self._optuna = optuna.create_study(
                directions=self.directions,
                pruner=pruning.pruner_of(self.pruner, settings),
                # Hyperband sorts trials into brackets by the study's name.
                study_name=f"sweepvi-{settings.seed}",
            )
        self._handles: dict[int, optuna.Trial] = {}
        self._verdicts: dict[int, Verdict] = {}
        self.judges_at_rungs = self.pruner not in ("none", "wilcoxon")
        """Whether trials are looked at on their way."""
        self._rungs = Rungs(settings.rungs if self.judges_at_rungs else 0)
        self._prescribed = self._first_trials()
        self.total = len(self._prescribed) if plan.grid else settings.n_trials or 0
        self.trouble = ""
        """Why the study cannot be gone on with at the moment, if it cannot."""
        self._sampler = "grid" if plan.grid else settings.sampler
        self.record = self._started()
        if self._sampler not in PRESCRIBED or not self.asked:
            self._optuna.sampler = sampler_of(self._sampler, settings.seed, self.asked, self._entropy)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Inside, trials may be asked for and judged, if it gives true; at its end, what was decided is kept."""
        yield True
        self.log.write()

    def wait_for_turn(self) -> None:
        """Come back when the next turn can be had."""

    @property
    def share(self) -> int:
        """The most trials that may be under way here."""
        return self.total

    def is_mine(self, trial: TrialRecord) -> bool:
        """Whether a trial that is not over is to be run here."""
        return trial.state == "RUNNING"

    def lost(self) -> list[int]:
        """Trials that have been ended or taken over elsewhere since this was last asked."""
        return []

    def may_score(self) -> bool:
        """Whether the best trials are to be scored again here; asked in a turn."""
        return True

    @property
    def asked(self) -> int:
        """How many trials there are."""
        return len(self._handles)

    @property
    def unfinished(self) -> list[int]:
        """Trials that are not over."""
        return [trial.number for trial in self.record.trials if trial.state == "RUNNING"]

    def ask(self) -> TrialRecord | None:
        """A new trial; None if there are as many as there are to be."""
        if self.asked >= self.total:
            return None
        began = time.perf_counter()
        number = self.asked
        params, distributions = self._propose(self._prescribed[number] if number < len(self._prescribed) else None)
        self.sampler_seconds += time.perf_counter() - began
        self._note({"event": "asked", "number": number, "params": params, "distributions": distributions})
        return self.record.trials[number]

    def arrived(self, arrival: Arrival) -> None:
        """A trial has reached a rung; see :meth:`judge`."""
        self._rungs.arrive(arrival)

    def over(self, number: int, verdict: Verdict) -> None:
        """A trial has ended; see :meth:`judge`."""
        if self.record.trials[number].state != "RUNNING":
            return
        self._verdicts.setdefault(number, verdict)
        self._rungs.leave(number)

    def judge(self) -> tuple[list[int], list[TrialRecord]]:
        """Everything that can be decided now: trials that are pruned while they run, and those that are settled."""
        pruned = []
        for arrival in self._rungs.due():
            if self._judged(arrival) and arrival.number not in self._verdicts:
                pruned.append(arrival.number)
        settled = []
        for number in sorted(self._verdicts):
            if self._rungs.judged(number):
                settled.append(self._settle(number, self._verdicts.pop(number)))
        return pruned, [*settled, *(self.record.trials[number] for number in pruned)]

    def report_seed(self, number: int, place: int, value: float) -> bool:
        """The score of a trial's fit under one of its seeds; whether it is to be given up."""
        handle = self._handles[number]
        handle.report(value, place)
        with _quiet():
            pruned = self.pruner == "wilcoxon" and bool(handle.should_prune())
        self._note({"event": "rung", "number": number, "rung": place, "step": place, "resource": place,
                    "value": value, "pruned": pruned})  # fmt: skip
        return pruned

    def add_final(self, **final: Any) -> None:
        """A score that took no part in choosing."""
        self._note({"event": "final", **final})

    def note(self, event: Mapping[str, Any]) -> None:
        """Something else that is worth keeping."""
        self._note(event)

    def _note(self, event: Mapping[str, Any]) -> None:
        self.log.add(event)
        self.record.add(event)

    def _started(self) -> StudyRecord:
        """What the log says, lived through again; or the beginning of it."""
        self.log.cut_torn_end()
        if not self.log.is_new:
            return self._again()
        record = StudyRecord.of([self._begin()])
        self.log.write()
        return record

    @property
    def _entropy(self) -> str:
        return ""

    def _begin(self) -> dict[str, Any]:
        event = {
            "event": "study",
            "version": VERSION,
            "identity": self.plan.identity(),
            "settings": asdict(self.plan.settings),
            "objectives": list(self.plan.settings.objective),
            "direction": self.directions,
            "created": now(),
        }
        self.log.add(event)
        return event

    def _first_trials(self) -> list[dict[str, Any]]:
        """Settings of the first trials: all of them in a grid; else the defaults, and what the user wants tried."""
        if self.plan.grid:
            return self.plan.points()
        defaults = self.plan.defaults()
        first = [*([defaults] if defaults else []), *self.plan.enqueued()]
        return [params for place, params in enumerate(first) if params not in first[:place]]

    def _propose(self, known: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, str]]:
        """The next trial's settings; ``known`` ones are taken as they are."""
        if known is not None:
            self._optuna.enqueue_trial(dict(known))
        with _quiet():
            handle = self._optuna.ask()
            self._handles[len(self._handles)] = handle
            params, distributions, chosen = {}, {}, {}
            for choice in self.plan.choices:
                params[choice.name] = suggest(handle, choice.name, choice.distribution)
                chosen[choice.key] = choice.value(params[choice.name])
                distributions[choice.name] = distribution_to_json(choice.distribution)
            for one in self.plan.dimensions(chosen):
                params[one.name] = suggest(handle, one.name, one.distribution)
                distributions[one.name] = distribution_to_json(one.distribution)
        return params, distributions

    def _judged(self, arrival: Arrival, known: bool | None = None) -> bool:
        """Ask the pruner about a trial at a rung; whether it is pruned. ``known`` is what it said before."""
        settings, number = self.plan.settings, arrival.number
        handle, resource = self._handles[number], pruning.resource(settings, arrival.rung)
        handle.report(arrival.value, resource)
        with _quiet():
            # Some pruners say it in a type of NumPy's.
            pruned = bool(handle.should_prune())
        pruned = pruned if known is None else known
        self._rungs.passed(number, arrival.rung, pruned)
        if known is not None:
            return pruned
        self._note(
            {
                "event": "rung",
                "number": number,
                "rung": arrival.rung,
                "step": arrival.step,
                "resource": resource,
                "value": arrival.value,
                "pruned": pruned,
            }
        )
        if pruned:
            self._verdicts.pop(number, None)
            self._prune(number, arrival.step, arrival.value, arrival.seconds)
        return pruned

    def _prune(self, number: int, step: int, value: float, seconds: float = 0.0) -> None:
        message = f"pruned at step {step}, where its ELBO was about {value:.6g}"
        self._settle(number, Verdict(PRUNED, "rung", message, steps=step, seconds=seconds))

    def _settle(self, number: int, verdict: Verdict) -> TrialRecord:
        """Tell Optuna and the log of a trial's end."""
        verdict = _sane(verdict)
        self._tell(number, verdict)
        frozen = self._optuna.get_trials(deepcopy=False)[number]
        self._note(
            {
                "event": "ended",
                "number": number,
                "state": verdict.state,
                "values": list(verdict.values) or None,
                "value_se": verdict.value_se,
                "seconds": verdict.seconds,
                "steps": verdict.steps,
                "message": verdict.message,
                "reason": verdict.reason,
                "curve": verdict.curve,
                "engine": verdict.engine,
                "system_attrs": _small(frozen.system_attrs),
            }
        )
        return self.record.trials[number]

    def _tell(self, number: int, verdict: Verdict) -> None:
        state = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAIL: TrialState.FAIL}[verdict.state]
        with _quiet():
            if state == TrialState.COMPLETE:
                self._optuna.tell(self._handles[number], list(verdict.values))
            else:
                self._optuna.tell(self._handles[number], state=state)

    def _again(self) -> StudyRecord:
        """Live through the log once more: the study is then as it was, down to what the pruner has noted."""
        record = StudyRecord.read(self.log.path.parent)
        self._demand_same(record)
        settings = self.plan.settings
        name, repeats = self._sampler, self._sampler in PRESCRIBED
        self._optuna.sampler = sampler_of(name if repeats else "random", settings.seed, 0)
        self.record = record
        for trial in record.trials:
            known = self._prescribed[trial.number] if trial.number < len(self._prescribed) else None
            params, _ = self._propose(known if repeats else trial.params)
            if params != trial.params:
                raise ConfigError(
                    [Problem.of("sweep.sampler", name, f"proposes other settings for trial {trial.number} than before")]
                )
        for trial in record.trials:
            for place, rung in enumerate(trial.rungs):
                self._live_again(trial, place, rung)
        for trial in record.trials:
            if trial.state != "RUNNING":
                self._rungs.leave(trial.number)
                self._tell_again(trial)
            elif trial.rungs and trial.rungs[-1].pruned:
                # The crash came between the two lines of the log.
                self._prune(trial.number, trial.rungs[-1].step, trial.rungs[-1].value)
        return record

    def _live_again(self, trial: TrialRecord, place: int, rung: Rung) -> None:
        if self.pruner == "wilcoxon":
            self._handles[trial.number].report(rung.value, rung.step)
        elif self._rungs.count:
            self._judged(Arrival(trial.number, place, rung.step, rung.value), rung.pruned)

    def _tell_again(self, trial: TrialRecord) -> None:
        self._tell(trial.number, Verdict(trial.state, values=tuple(trial.values or ())))

    def _demand_same(self, record: StudyRecord) -> None:
        """Raise ``ConfigError`` with every difference, if the log is of another study than the plan."""
        before, after = flattened(record.identity), flattened(_as_json(self.plan.identity()))
        changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        if changed:
            where = self.log.path.parent
            raise ConfigError(
                [
                    Problem.of(key, after.get(key), f"the study in {where} has {before.get(key)!r}; it cannot change")
                    for key in changed
                ]
            )


def _sane(verdict: Verdict) -> Verdict:
    """A score that is none, as that of a fit that has diverged: it can never win."""
    if verdict.state != COMPLETE or all(math.isfinite(value) and abs(value) < ABSURD for value in verdict.values):
        return verdict
    shown = ", ".join(f"{value:.3g}" for value in verdict.values)
    return Verdict(
        PRUNED,
        "diverged",
        f"its score is {shown}, which is none",
        seconds=verdict.seconds,
        steps=verdict.steps,
        curve=verdict.curve,
        engine=verdict.engine,
    )


def flattened(tree: Any, where: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by their dotted key."""
    if not isinstance(tree, Mapping):
        return {where: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flattened(value, f"{where}.{key}" if where else str(key))
    return found


def _as_json(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))


def _small(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What a pruner has noted on a trial; a sampler's own state is not for the log."""
    return {key: value for key, value in attrs.items() if key.startswith("completed_rung")}


def now() -> str:
    """The time, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Optuna says nothing: what it has to say is in the report."""
    import warnings

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
