"""A chunk that is being compiled in the background."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

from sweepvi.engine.lanes.compiled import packages
from sweepvi.engine.lanes.compiled.program import ChunkProgram
from sweepvi.engine.lanes.compiled.worker import ERROR, PACKAGE, PROGRAM

_RUN = """
import sys
del sys.path[0]
from pathlib import Path
from sweepvi.engine.lanes.compiled.worker import main
main(Path(sys.argv[1]))
"""
"""What the compiler's process runs: modules in the folder where the user happens to be are none of its."""


class CompilationError(Exception):
    """A program could not be compiled; the message says why in one line."""


class Compilation:
    """A program on its way to machine code, which is kept on disk for the next who wants it.

    Args:
        program: what to compile.

    """

    def __init__(self, program: ChunkProgram) -> None:
        self._key, self._cache = program.key(), packages.cache_folder()
        self._found = packages.find(self._cache, self._key) if self._cache else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._found is None:
            self._begin(program)

    def package(self) -> Path | None:
        """Where the machine code is; None while it is being made.

        Raises ``CompilationError`` if it is not to be had.
        """
        if self._found is None and self._process is not None and self._process.poll() is not None:
            made = self._folder / PACKAGE
            if not made.is_file():
                raise CompilationError(self._why())
            self._found = packages.keep(self._cache, self._key, made) if self._cache else made
        return self._found

    def stop(self) -> None:
        """Let go of it; what is not made by now is not made."""
        if self._process is not None:
            self._end()

    def _begin(self, program: ChunkProgram) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="making-", dir=self._cache))
        (self._folder / PROGRAM).write_bytes(pickle.dumps(program))
        source = str(Path(__file__).parents[4])
        paths = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            # Not interrupted by Ctrl-C, and ended as a whole, compilers and all.
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._process, self._folder)

    def _why(self) -> str:
        assert self._process is not None
        try:
            return (self._folder / ERROR).read_text(encoding="utf-8")
        except OSError:
            return f"the compiler's process ended with status {self._process.returncode}"


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
