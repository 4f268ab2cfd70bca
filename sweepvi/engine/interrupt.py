"""Ctrl-C as a request: the fit ends at the next step, and saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether the user has asked to stop.

    Attributes:
        asked: whether this process has been asked.
        alone: whether that is enough; if not, the processes of the fit must agree on the step.

    """

    asked = False
    alone = True

    @property
    def requested(self) -> bool:
        """Whether to stop now."""
        return self.asked and self.alone

    def agree(self) -> None:
        """Stop now, as all processes of the fit do."""
        self.asked = self.alone = True


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside, the first Ctrl-C sets ``requested``; a second one interrupts at once, as Python does.

    Only the main thread gets signals; elsewhere, ``requested`` stays False.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.getsignal(signal.SIGINT) or signal.SIG_DFL

    def request(number: int, frame: FrameType | None) -> None:
        del number, frame
        interrupt.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
