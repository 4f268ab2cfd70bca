"""Ctrl-C in a sweep: the first ends it with everything kept, a second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """Whether the user has asked to stop."""

    requested = False


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Inside, the first Ctrl-C or SIGTERM sets ``requested``; the next one is what it was before.

    Only the main thread gets signals; elsewhere, ``requested`` stays False.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) or signal.SIG_DFL for kind in kinds}

    def request(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.requested = True
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, request)
    try:
        yield stopping
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
