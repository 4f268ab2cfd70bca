"""Workers, seen from the benchmark: a process each, one thread each, asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent.parent
NUMPYRO_PYTHON = HERE / ".venv" / "bin" / "python"

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # The size of XLA's own pool; its flag for matrix products alone leaves that at the number of cores.
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}


class WorkerError(Exception):
    """A worker could not do what it was asked; the benchmark goes on without that figure."""


class Worker:
    """A contender's process, from its start until it is closed.

    Args:
        module: ``sweepvi``, ``pyro`` or ``numpyro``.
        dtype: ``float32`` or ``float64``.
        cold: whether its caches are empty, as on a machine that has run nothing before.

    """

    def __init__(self, module: str, dtype: str, cold: bool = False) -> None:
        self.module = module
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the worker
        self.scratch = tempfile.TemporaryDirectory(prefix="lanes-")
        environment = {**os.environ, **ONE_THREAD, "JAX_ENABLE_X64": "1" if dtype == "float64" else "0"}
        if cold:
            caches = ("TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
            environment |= dict.fromkeys(caches, self.scratch.name)
        python = NUMPYRO_PYTHON if module == "numpyro" else Path(sys.executable)
        command = [str(python), "-m", f"contenders.{module}_worker"]
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The reply to a request; ``WorkerError`` if that is an error, or the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        reply: dict[str, Any] = json.loads(line) if line else {"error": f"ended: {self._last_error()}"}
        if "error" in reply:
            raise WorkerError(f"{self.module}: {reply['error']}")
        return reply

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if error is not None:
            self.process.kill()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()
        self.scratch.cleanup()

    def _last_error(self) -> str:
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {self.process.returncode}"
