"""The first run of machine code, in a process with which nothing is lost."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from sweepvi.engine.lanes.compiled.program import ChunkProgram
from sweepvi.private import load_package


class CrashedError(Exception):
    """Machine code does not run; the message says how that showed."""


class Rehearsal:
    """A process that waits for machine code, to run it once on zeros.

    It is like a fit's: it has no compiler in it, and gets to a device by itself. So code that would crash there crashes
    here. It must be made before this process has threads, or has touched a device.

    Args:
        program: that the machine code will be of.

    """

    def __init__(self, program: ChunkProgram) -> None:
        context = multiprocessing.get_context("fork")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_rehearse, args=(program, self._line, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def demand(self, package: Path) -> None:
        """Run what is in a file; ``CrashedError`` if that cannot be done."""
        self._line.send(package)
        try:
            problem = self._line.recv()
        except EOFError:
            problem = None
        self._process.join()
        code = self._process.exitcode
        if code:
            problem = f"it crashed: {signal.Signals(-code).name if code < 0 else f'status {code}'}"
        if problem:
            raise CrashedError(f"machine code was tried, and {problem}")


def _rehearse(program: ChunkProgram, others: Connection, line: Connection) -> None:
    # With the other end open here too, its owner could end unnoticed.
    others.close()
    try:
        package = line.recv()
    except EOFError:
        return
    line.send(_problem(lambda: _run(program, package)))


def _problem(action: Callable[[], None]) -> str:
    try:
        action()
    except Exception as error:
        lines = str(error).strip().splitlines()
        return f"it failed: {lines[0] if lines else type(error).__name__}"
    return ""


def _run(program: ChunkProgram, package: Path) -> None:
    example = [layout.example() for layout in program.layouts]
    with torch.no_grad():
        load_package(package)(example)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
