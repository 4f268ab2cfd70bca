"""The process that compiles a chunk: one program, and it ends when whoever wants it does."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from pathlib import Path

from sweepvi.engine.lanes.compiled.rehearsal import Rehearsal

PROGRAM, PACKAGE, ERROR = "program.pickle", "chunk.pt2", "error.txt"
"""Files of the folder in which it works."""


def main(folder: Path) -> None:
    """Compile the program in a folder, and leave there what came of it."""
    os.nice(10)
    try:
        program = pickle.loads((folder / PROGRAM).read_bytes())
        rehearsal = Rehearsal(program)
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
        unfinished = folder / f"unfinished-{PACKAGE}"
        program.compile(unfinished)
        rehearsal.demand(unfinished)
        unfinished.replace(folder / PACKAGE)
    except BaseException as error:
        (folder / ERROR).write_text(_one_line(error), encoding="utf-8")
        raise


def _end_with_standard_input() -> None:
    """The other end is closed when its process ends, however it does; compilers that run by now end as well."""
    # Not by Python's reader, whose lock would end the process with an abort while this waits.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
