"""A sweep from its plan to its folder."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.errors import SweepviError
from sweepvi.registry import GIVEN
from sweepvi.sweep import best, database, ending, report, table
from sweepvi.sweep.controller import Controller
from sweepvi.sweep.interrupt import Stopping, stoppable
from sweepvi.sweep.live import View
from sweepvi.sweep.log import EventLog
from sweepvi.sweep.mirror import Mirror
from sweepvi.sweep.plan import Plan
from sweepvi.sweep.protocol import Setup
from sweepvi.sweep.records import LOG, StudyRecord, TrialRecord
from sweepvi.sweep.shared_log import SharedLog
from sweepvi.sweep.shared_study import SharedStudy
from sweepvi.sweep.slots import Crew, slots_of, threads_of
from sweepvi.sweep.study import Study, now

if TYPE_CHECKING:
    import optuna
    import pandas as pd

FINISHED, FAILED, INTERRUPTED = 0, 1, 130

OUTPUT = "workers.log"
"""What workers have printed."""


@dataclass(frozen=True)
class Best:
    """A trial that won."""

    trial: TrialRecord
    config: Mapping[str, Any]
    """Its complete configuration, as plain data."""

    @property
    def value(self) -> float | None:
        """Its score; the first of several."""
        return self.trial.value

    @property
    def params(self) -> dict[str, Any]:
        """What was searched, and its value here."""
        return self.trial.params

    @property
    def settings(self) -> dict[str, Any]:
        """Keywords of :func:`sweepvi.fit` that repeat it, beside those that were given as objects."""
        return {group: node for group, node in self.config.items() if group != "model" and node["name"] != GIVEN}


@dataclass
class SweepResult:
    """What a sweep has come to."""

    record: StudyRecord
    folder: Path
    plan: Plan
    status: str
    """``finished``, ``failed`` if no trial has a score, or ``interrupted``."""
    text: str
    """How it is told."""

    @property
    def best(self) -> Best | None:
        """The best trial; None if there is none with a score. Of several objectives, the best in the first."""
        record = self.record
        found = record.best if len(record.objectives) == 1 else next(iter(record.pareto), None)
        return None if found is None else Best(found, self.plan.configuration(found.params))

    @property
    def pareto(self) -> list[Best]:
        """The trials that no other betters in all objectives."""
        return [Best(trial, self.plan.configuration(trial.params)) for trial in self.record.pareto]

    @property
    def trials(self) -> pd.DataFrame:
        """A row a trial, with the columns of ``trials.csv``."""
        return self.record.frame()

    @property
    def study(self) -> optuna.Study:
        """The same as a study of Optuna's, in memory."""
        return self.record.study()

    @property
    def exit_status(self) -> int:
        """Of a command that ends with it."""
        return {"finished": FINISHED, "failed": FAILED, "interrupted": INTERRUPTED}[self.status]


def run(plan: Plan, folder: Path, view: View, crew: Crew | None = None) -> SweepResult:
    """Run a study to its end, or on from where it was left; everything is in its folder then.

    Args:
        plan: what is searched.
        folder: of the sweep; the study that is there goes on.
        view: hears of progress.
        crew: workers that have been started already, if there are any.

    Raises:
        ConfigError: the folder is of another study, another process runs it, or its database cannot be reached.
        SweepviError: workers do not start, or the disk is full; what was computed before is kept.

    """
    mirror = Mirror(plan.settings.storage, folder, folder.resolve().name)
    opening = _opened(mirror, plan)
    with _log_of(plan, folder) as log, stoppable() as stopping, crew or Crew() as workers:
        folder = log.path.parent
        study = SharedStudy(plan, log) if isinstance(log, SharedLog) else Study(plan, log)
        try:
            _compute(
                study,
                folder,
                view,
                stopping,
                workers,
                lambda: None if opening.is_alive() else _copied(study, mirror),
            )
        finally:
            view.close()
            opening.cancel()
            opening.join()
        return _finished(study, folder, mirror, stopping)


def _log_of(plan: Plan, folder: Path) -> EventLog:
    """Where a study is kept: in its folder, or in a database that agents share."""
    storage = plan.settings.storage
    if storage is None or not database.is_shared(storage):
        return EventLog(folder)
    return SharedLog(folder, storage, folder.resolve().name, plan.settings.agent_timeout)


def _copied(study: Study, mirror: Mirror) -> str:
    """Copy finished trials for others to see; returns what went wrong, if something did."""
    if not isinstance(study, SharedStudy):
        return mirror.sync(study.record)
    # In a turn, or two agents would copy the same trial.
    study.wait_for_turn()
    with study.turn() as mine:
        mirror.look_again()
        return mirror.sync(study.record) if mine else study.trouble


def _opened(mirror: Mirror, plan: Plan) -> threading.Timer:
    """Open a database that the settings name, or say what is wrong with it; the folder's own, on the side."""
    if plan.settings.storage is not None:
        mirror.check()
    # Not while workers wait for their first fits.
    timer = threading.Timer(1.0, mirror.prepare)
    timer.daemon = True
    timer.start()
    return timer


def _compute(
    study: Study, folder: Path, view: View, stopping: Stopping, crew: Crew, copy: Callable[[], object]
) -> None:
    plan = study.plan
    if not study.unfinished and study.asked >= study.total and not _finalists(study):
        return
    slots = slots_of(plan.workers, _wants_cuda(plan))
    if not slots:
        raise SweepviError("there is no place for a worker: workers.gpus and workers.cpus leave none")
    setup = Setup(
        given=plan.given,
        threads=threads_of(len(slots)),
        rung_value="smoothed" if _compares_losses(plan) else "fixed",
        rung_draws=plan.settings.rung_draws,
        path=sys.path,
        memory=plan.workers.memory,
        objectives=tuple(plan.settings.objective),
        target=plan.settings.target,
    )
    crew.fill(slots, setup)
    study.note({"event": "session", "started": now(), "workers": len(slots)})
    controller = Controller(study, crew, setup, view, copy)
    try:
        controller.run(stopping)
        if not stopping.requested:
            controller.finals(lambda: _finalists(study), stopping)
    finally:
        crew.end()
        controller.note_occupancy()
        if said := crew.output():
            with (folder / OUTPUT).open("ab") as file:
                file.write(said)


def _wants_cuda(plan: Plan) -> bool:
    engines = plan.identity()["configuration"]["engine"]
    return any(str(node["device"]).startswith("cuda") for node in (engines if isinstance(engines, list) else [engines]))


def _compares_losses(plan: Plan) -> bool:
    """Whether all fits estimate the same bound, so that their losses can be compared."""
    identity = plan.identity()
    return isinstance(identity["configuration"]["estimator"], dict) and not any(
        name.startswith("estimator") for name in identity["space"]
    )


def _finalists(study: Study) -> list[TrialRecord]:
    """The trials that are to be scored again, and have not been."""
    settings, record = study.plan.settings, study.record
    chosen = record.ranked if len(record.objectives) == 1 else record.pareto
    return [trial for trial in chosen[: settings.finalists] if len(trial.finals) < settings.final_seeds + 1]


def _finished(study: Study, folder: Path, mirror: Mirror, stopping: Stopping) -> SweepResult:
    """Make everything else in the folder of the log."""
    record = study.record
    try:
        table.write(record, folder)
        commands = best.write(record, folder, lambda trial: study.plan.configuration(trial.params))
        report.write(record, folder)
    except OSError as error:
        raise SweepviError(
            f"{error.filename or folder} cannot be written: {error.strerror}; all trials are kept in "
            f"{folder / LOG}, and the same command makes the rest of it"
        ) from error
    trouble = _copied(study, mirror)
    mirror.close()
    over = study.asked >= study.total and not study.unfinished
    status = "interrupted" if stopping.requested and not over else "finished" if record.scored else "failed"
    told = ending.text(record, folder, commands)
    return SweepResult(record, folder, study.plan, status, f"{told}\nnote: {trouble}" if trouble else told)
