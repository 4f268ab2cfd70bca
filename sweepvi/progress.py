"""Progress on a terminal: a bar, or plain lines where there is none."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from sweepvi.engine.observer import Observer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("sweepvi")

REFRESH_SECONDS = 0.1
SMOOTHING = 0.98
"""Weight of the past in the smoothed loss: an average over about 50 steps."""


class Lines(Observer):
    """A line every ``every`` steps, to the log; and to standard error if ``echo``."""

    def __init__(self, every: int, echo: bool) -> None:
        self.every = every
        self.echo = echo
        self.smoothed = SmoothedLoss()
        self.speed = Speed()

    def started(self, done: int, total: int) -> None:
        """Say where the fit starts."""
        self.total = total
        self.speed.start(done)
        self._say(f"{'continuing after' if done else 'starting at'} step {done} of {total}")

    def stepped(self, step: int, loss: float) -> None:
        """Say where it is, now and then."""
        self.smoothed.add(loss)
        if step % self.every == 0 or step == self.total:
            speed = self.speed.at(step)
            left = (self.total - step) / speed
            self._say(
                f"step {step}/{self.total}  loss {self.smoothed.value:.2f}  {speed:,.0f} steps/s  {left:.0f} s left"
            )

    def ended(self, status: str) -> None:
        """Say how it ended."""
        self._say(f"fit {status}")

    def _say(self, line: str) -> None:
        log.info(line)
        if self.echo:
            print(line, file=sys.stderr, flush=True)


class Bar(Lines):
    """A progress bar on standard error, with step, smoothed loss, steps per second and time left."""

    def __init__(self, every: int) -> None:
        super().__init__(every, echo=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._drawn = 0.0

    def started(self, done: int, total: int) -> None:
        """Draw the bar."""
        super().started(done, total)
        self._bar = bar = _make_bar()
        bar.start()
        self._task = bar.add_task("fit", total=total, completed=done, loss="", speed="")

    def stepped(self, step: int, loss: float) -> None:
        """Move it, ten times a second at most."""
        super().stepped(step, loss)
        now = time.perf_counter()
        if now - self._drawn >= REFRESH_SECONDS or step == self.total:
            self._drawn = now
            text = f"loss {self.smoothed.value:,.2f}"
            self._update(completed=step, loss=text, speed=f"{self.speed.at(step):,.0f} steps/s")

    def scoring(self, done: int, total: int) -> None:
        """A second bar's worth for the score."""
        now = time.perf_counter()
        if done == 1 or done == total or now - self._drawn >= REFRESH_SECONDS:
            self._drawn = now
            self._update(description="score", completed=done, total=total, loss="", speed="fresh draws")

    def ended(self, status: str) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
        super().ended(status)

    def _update(self, **fields: object) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, **fields)  # type: ignore[arg-type]


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    )


class SmoothedLoss:
    """An exponential average of losses, corrected for its start; infinite and NaN losses are left out."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, loss: float) -> None:
        """Take a loss into the average."""
        if abs(loss) < float("inf"):
            self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)

    @property
    def value(self) -> float:
        """The average; NaN before the first loss."""
        return self._sum / self._weight if self._weight else float("nan")


class Speed:
    """Steps per second since the start."""

    def start(self, done: int) -> None:
        """Start the clock, ``done`` steps in."""
        self._done, self._since = done, time.perf_counter()

    def at(self, step: int) -> float:
        """Steps per second up to ``step``."""
        return (step - self._done) / max(time.perf_counter() - self._since, 1e-9)


def observer_for(progress: bool, every: int) -> Observer:
    """A bar on a terminal, lines elsewhere; only the log's lines without ``progress``."""
    if progress and sys.stderr.isatty():
        return Bar(every)
    return Lines(every, echo=progress)
