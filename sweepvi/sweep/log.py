"""The event log of a sweep: appended, never rewritten, and owned by one process at a time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from sweepvi.errors import ConfigError, Problem, SweepviError
from sweepvi.sweep.records import LOG

LOCK = ".lock"


class EventLog:
    """See :mod:`sweepvi.sweep.records` for what is in it. A context: inside, nobody else can have it.

    Raises ``ConfigError`` on entering if another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self._lock = FileLock(folder / LOCK)
        self._unwritten: list[str] = []

    def __enter__(self) -> EventLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                [Problem.of("hydra.sweep.dir", str(self.path.parent), "another process is running this sweep")]
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been written yet."""
        return not self.path.exists() or b"\n" not in self.path.read_bytes()

    def cut_torn_end(self) -> None:
        """Forget what was being written when a crash came: half a line."""
        if self.path.exists():
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.path.open("r+b") as file:
                    file.truncate(whole)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event down, to be written with others."""
        self._unwritten.append(json.dumps(_plain(event), allow_nan=False) + "\n")

    def write(self) -> None:
        """Write what was taken down; it is on the disk then. ``SweepviError`` if the disk does not take it."""
        if not self._unwritten:
            return
        text, self._unwritten = "".join(self._unwritten), []
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self.path, size)
            raise SweepviError(
                f"{self.path} cannot be written: {error.strerror}; what was written before is kept, and the same "
                "command goes on from there"
            ) from error


def _plain(value: Any) -> Any:
    """Data as JSON can hold it; a number that is not finite is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
