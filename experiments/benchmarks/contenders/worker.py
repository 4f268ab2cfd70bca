"""Workers, seen from the benchmark: a process each, one thread each, asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
NUMPYRO_PYTHON = HERE / ".venv" / "bin" / "python"
MODULES = {"pyro": "pyro", "numpyro": "numpyro", "traced": "sweepvi", "compiled": "sweepvi"}
"""Contender → who runs it; the last two are sweepvi's tiers."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # The size of XLA's own pool; its flag for matrix products alone leaves that at the number of cores.
    "NPROC": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
CACHES = ("TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "SWEEPVI_CACHE")


class WorkerError(Exception):
    """A worker could not do what it was asked; the benchmark goes on without that figure."""


class Worker:
    """A contender's process, from its start until it is closed.

    Args:
        contender: one of ``MODULES``.
        dtype: ``float32`` or ``float64``.
        cold: whether its caches are empty, as on a machine that has run nothing before.

    """

    def __init__(self, contender: str, dtype: str, cold: bool = False) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the worker
        self._scratch = tempfile.TemporaryDirectory(prefix="lanes-", ignore_cleanup_errors=True)
        environment = {**os.environ, **ONE_THREAD, "JAX_ENABLE_X64": str(int(dtype == "float64"))}
        if cold:
            environment |= dict.fromkeys(CACHES, self._scratch.name)
        python = NUMPYRO_PYTHON if contender == "numpyro" else Path(sys.executable)
        self._process = subprocess.Popen(
            [python, "-m", f"contenders.{MODULES[contender]}_worker"],
            cwd=HERE,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """The reply to a request; ``WorkerError`` if that is an error, or the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        reply: dict[str, Any] = json.loads(line) if line else {"error": f"ended: {self._last_error()}"}
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._scratch.cleanup()

    def _last_error(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"
