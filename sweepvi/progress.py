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
        self.total, self._at = total, done
        self.speed.start(done)
        self._say(f"{'continuing after' if done else 'starting at'} step {done} of {total}")

    def stepped(self, step: int, loss: float) -> None:
        """Say where it is, now and then."""
        due, before = step // self.every > self._at // self.every, self._at
        self._at = step
        self.smoothed.add(loss, step - before)
        if due or step == self.total:
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
    """Progress bars on standard error: step, smoothed loss, steps per second and time left; then the score's draws."""

    def __init__(self, every: int) -> None:
        super().__init__(every, echo=False)
        self._bars = _make_bars()
        self._tasks: dict[str, TaskID] = {}
        self._drawn = 0.0

    def started(self, done: int, total: int) -> None:
        """Draw the bar of steps."""
        super().started(done, total)
        self._bars.start()
        self._draw("fit", done, total, "")

    def stepped(self, step: int, loss: float) -> None:
        """Move it, ten times a second at most."""
        super().stepped(step, loss)
        if self._is_due(step == self.total):
            text = f"loss {self.smoothed.value:,.2f}  {self.speed.at(step):,.0f} steps/s"
            self._draw("fit", step, self.total, text)

    def scoring(self, done: int, total: int) -> None:
        """Draw or move the bar of fresh draws."""
        if self._is_due(done in (1, total)):
            self._draw("score", done, total, "fresh draws")

    def ended(self, status: str) -> None:
        """Leave the bars as they are."""
        self._bars.stop()
        super().ended(status)

    def _is_due(self, at_once: bool) -> bool:
        now = time.perf_counter()
        if not at_once and now - self._drawn < REFRESH_SECONDS:
            return False
        self._drawn = now
        return True

    def _draw(self, name: str, done: int, total: int, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total, text="")
        self._bars.update(self._tasks[name], completed=done, total=total, text=text, refresh=True)


def _make_bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<5}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
    )


class SmoothedLoss:
    """An exponential average of losses, corrected for its start; infinite and NaN losses are left out."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, loss: float, steps: int = 1) -> None:
        """Take a loss, that stands for so many steps, into the average."""
        if abs(loss) < float("inf"):
            past = SMOOTHING**steps
            self._sum = past * self._sum + (1 - past) * loss
            self._weight = past * self._weight + (1 - past)

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
