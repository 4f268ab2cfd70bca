"""A sweep while it runs: a table on a terminal that is drawn anew, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sweepvi.sweep import ending
from sweepvi.sweep.best import score
from sweepvi.sweep.records import COMPLETE, FAIL, PRUNED, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

log = logging.getLogger("sweepvi")

REFRESH_SECONDS = 0.25
LINE_SECONDS = 5.0
"""The least time between two plain lines."""

Clock = Callable[[], float]


class View:
    """Hears how a sweep goes, and says nothing."""

    def started(self, total: int, record: StudyRecord) -> None:
        """The sweep begins, or goes on: ``total`` trials in all, ``record`` what there is of them."""

    def asked(self, number: int) -> None:
        """A trial is to run."""

    def running(self, busy: int, lanes: int, workers: int) -> None:
        """So many fits are running, of as many as all the workers have lanes for."""

    def ended(self, trial: TrialRecord) -> None:
        """A trial is over."""

    def message(self, text: str) -> None:
        """Something has happened that a user wants to know of."""

    def close(self) -> None:
        """The sweep has ended, or was stopped."""


class Lines(View):
    """A line every few seconds, to the log; and to standard error if ``echo``."""

    def __init__(self, echo: bool, clock: Clock = time.perf_counter) -> None:
        self.echo = echo
        self._clock = clock
        self._tally: Tally | None = None
        self._said = -LINE_SECONDS

    def started(self, total: int, record: StudyRecord) -> None:
        """Say where the sweep starts."""
        self._tally = tally = Tally(total, record, self._clock)
        self._said = self._clock()
        there = f", {tally.done:,} of them already done" if tally.done else ""
        self._say(f"sweep of {total:,} trials{there}")

    def asked(self, number: int) -> None:
        """Count a trial that is to run."""
        if self._tally is not None:
            self._tally.asked.add(number)
            self._update()

    def running(self, busy: int, lanes: int, workers: int) -> None:
        """Take down how busy workers are."""
        if self._tally is not None:
            self._tally.busy, self._tally.lanes, self._tally.workers = busy, lanes, workers
            self._update()

    def ended(self, trial: TrialRecord) -> None:
        """Count a trial that is over."""
        if self._tally is not None:
            self._tally.add(trial)
            self._update()

    def message(self, text: str) -> None:
        """Say it at once."""
        self._say(text)

    def close(self) -> None:
        """Say how far it came."""
        if self._tally is not None:
            self._say(self._tally.line())
            self._tally = None

    def _update(self) -> None:
        """Say where it is, if nothing was said for a while."""
        now = self._clock()
        if self._tally is not None and now - self._said >= LINE_SECONDS:
            self._said = now
            self._say(self._tally.line())

    def _say(self, line: str) -> None:
        log.info(line)
        if self.echo:
            print(line, file=sys.stderr, flush=True)


class Table(Lines):
    """A table on a terminal, drawn anew in its place; messages appear above it."""

    def __init__(self, console: Console | None = None, clock: Clock = time.perf_counter) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(echo=False, clock=clock)
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self._drawing)
        self._drawn = clock() - REFRESH_SECONDS

    def started(self, total: int, record: StudyRecord) -> None:
        """Draw the table."""
        super().started(total, record)
        self._live.start(refresh=True)

    def message(self, text: str) -> None:
        """Say it above the table."""
        super().message(text)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the table as it is in the end."""
        if self._tally is not None:
            self._live.refresh()
            self._live.stop()
        super().close()

    def _update(self) -> None:
        super()._update()
        now = self._clock()
        if now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._live.refresh()

    def _drawing(self) -> RenderableType:
        from rich.text import Text

        return Text("") if self._tally is None else drawing(self._tally)


class Tally:
    """What is known of a running sweep."""

    def __init__(self, total: int, record: StudyRecord, clock: Clock = time.perf_counter) -> None:
        self.total = total
        self.asked: set[int] = set()
        """The trials that are under way."""
        self.counts = {COMPLETE: 0, PRUNED: 0, "diverged": 0, FAIL: 0}
        self.best: TrialRecord | None = None
        self.busy = self.lanes = self.workers = 0
        self._objectives = StudyRecord(record.objectives, record.directions)
        self._clock = clock
        self._since = clock()
        for trial in record.trials:
            if trial.state in (COMPLETE, PRUNED, FAIL):
                self.add(trial)
        self._before = self.done

    @property
    def done(self) -> int:
        """Trials that are over, those of earlier sessions among them."""
        return sum(self.counts.values())

    def add(self, trial: TrialRecord) -> None:
        """Count a trial that is over."""
        self.asked.discard(trial.number)
        self.counts["diverged" if trial.reason == "diverged" else trial.state] += 1
        if trial.is_scored and (self.best is None or self._objectives.is_better(trial, self.best)):
            self.best = trial

    @property
    def rate(self) -> float:
        """Trials a minute, since this session began."""
        return 60 * (self.done - self._before) / max(self._clock() - self._since, 1e-9)

    def pace(self) -> str:
        """How fast it goes and how long it will take: ``48 a minute, 6 min left``."""
        if not self.rate:
            return ""
        left = 60 * max(self.total - self.done, 0) / self.rate
        return f"{self.rate:,.3g} a minute" + (f", {duration(left)} left" if left else "")

    def states(self) -> str:
        """How many trials are where: ``120 complete, 30 running, 12 pruned``; none of what there is none of."""
        named = {
            "complete": self.counts[COMPLETE],
            "running": len(self.asked),
            "pruned": self.counts[PRUNED],
            "diverged": self.counts["diverged"],
            "failed": self.counts[FAIL],
        }
        return ", ".join(f"{count:,} {name}" for name, count in named.items() if count) or "none yet"

    def winner(self) -> str:
        """The best score; empty without one."""
        return "" if self.best is None else f"{score(self._objectives, self.best)}, trial {self.best.number}"

    def settings(self) -> str:
        """What was searched in the best trial: ``optimizer=adam optimizer.lr=0.01``."""
        return "" if self.best is None else " ".join(f"{name}={value}" for name, value in ending.settings(self.best))

    def workers_busy(self) -> str:
        """How many fits are running, and where; empty where that is not known."""
        if not self.lanes:
            return ""
        return f"{self.busy:,} of {self.lanes:,} lanes busy, in {self.workers} worker{'s' * (self.workers != 1)}"

    def line(self) -> str:
        """All of it in a line."""
        best = f"best {self.winner()} ({self.settings()})" if self.best is not None else ""
        parts = [f"{self.done:,}/{self.total:,} trials", self.states(), best, self.pace()]
        return "  ".join(part for part in parts if part)


def drawing(tally: Tally) -> RenderableType:
    """A tally as a table for a terminal."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("sweep", ProgressBar(total=max(tally.total, 1), completed=tally.done, width=30))
    rows = {
        "trials": f"{tally.done:,} of {tally.total:,}: {tally.states()}",
        "best": tally.winner(),
        "with": tally.settings(),
        "lanes": tally.workers_busy(),
        "pace": tally.pace(),
    }
    for name, text in rows.items():
        grid.add_row(name, Text(text or "–", style="bold" if name == "best" else ""))
    return grid


def duration(seconds: float) -> str:
    """A time in words: ``45 s``, ``6 min``, ``2 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def view_for(show: bool) -> View:
    """A table on a terminal, lines elsewhere; only the log's lines without ``show``."""
    if show and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
        return Table()
    return Lines(echo=show)
