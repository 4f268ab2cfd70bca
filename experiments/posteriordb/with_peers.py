"""Other libraries' variational inference, a process a fit, in an environment of their own: see ``peers``."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fitted import Fitted

from sweepvi.diagnostics import pareto_k

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / "bin" / "python"
PEERS = ("advi", "dadvi", "numpyro", "numpyro_full_rank", "pathfinder", "viabel")

MISSING = """{python} is not there, and is needed by {peers}; make it by
    python -m venv experiments/posteriordb/.venv
    experiments/posteriordb/.venv/bin/pip install -r experiments/posteriordb/requirements-peers.txt
or say where it is by --peers"""

ENVIRONMENT = {
    "JAX_ENABLE_X64": "1",
    "JAX_PLATFORMS": "cpu",
    # One thread each, as the others have; NPROC is the size of XLA's own pool.
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Peers:
    """Fits by peers."""

    python: Path
    """Of their environment."""
    limit: float
    """Seconds that a fit may take, the start of its process included."""

    def missing(self, contenders: list[str]) -> str | None:
        """What to do first, if a contender needs the environment and it is not there."""
        needing = [name for name in contenders if name in PEERS]
        if not needing or self.python.is_file():
            return None
        return MISSING.format(python=self.python, peers=", ".join(needing))

    def fit(self, peer: str, posterior: str, kwargs: Mapping[str, Any], seed: int) -> Fitted:
        """Fit by one of ``PEERS``.

        Args:
            peer: its name.
            posterior: short name.
            kwargs: arguments of its Pyro model, which are those of the NumPyro model.
            seed: of its random numbers.

        """
        with tempfile.TemporaryDirectory() as folder:
            data, reply = Path(folder, "data.npz"), Path(folder, "reply.npz")
            arrays = {name: np.asarray(value) for name, value in kwargs.items()}
            np.savez(data, **arrays)  # pyright: ignore[reportArgumentType]
            try:
                self.run("peers.worker", peer, posterior, str(seed), str(data), str(reply))
            except subprocess.TimeoutExpired:
                return Fitted({}, None, self.limit, None, note=f"not done in {self.limit:.0f} s")
            except subprocess.CalledProcessError as error:
                return Fitted({}, None, None, None, note=_last_line(error.stderr))
            with np.load(reply) as found:
                return _fitted(dict(found))

    def run(self, module: str, *words: str) -> None:
        """Run a module in the peers' environment; raises as :func:`subprocess.run` does."""
        subprocess.run(
            [self.python, "-m", module, *words],
            cwd=HERE,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
            timeout=self.limit,
        )


def _fitted(found: dict[str, np.ndarray]) -> Fitted:
    draws = {
        name.removeprefix("site "): torch.from_numpy(values)
        for name, values in found.items()
        if name.startswith("site ")
    }
    k_hat = pareto_k(torch.from_numpy(found["log_weights"]))
    return Fitted(draws, k_hat, float(found["seconds"]), int(found["evaluations"]), note=str(found["note"]))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "ended without a word"
