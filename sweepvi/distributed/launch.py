"""Which of several processes this one is, as those that start them say in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """Which of the processes that were started together this one is."""

    rank: int
    """Its number, from 0."""
    world_size: int
    """How many there are."""
    local_rank: int
    """Its number among those on its machine."""
    address: str = ""
    """Where rank 0 listens, ``HOST:PORT``; empty if whoever started them needs no such thing."""
    restarts: int = 0
    """How often all of them have been started again because one had died."""


_VARIABLES = (
    # torchrun
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT"),
    ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", ""),
    # Horovod under mpirun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", ""),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_RESTART_COUNT"),
)
SLURM_PORTS = 20_000
"""Ports from which jobs under SLURM take one by their number."""


def launched(environ: Mapping[str, str] | None = None) -> Launch | None:
    """What the environment says, by torchrun, horovodrun, mpirun or srun; None of a process started by itself."""
    environ = os.environ if environ is None else environ
    for rank, size, local, restarts in _VARIABLES:
        if rank in environ and size in environ:
            return Launch(
                int(environ[rank]),
                int(environ[size]),
                int(environ.get(local, "0")),
                _address(environ),
                int(environ.get(restarts, "0")) if restarts else 0,
            )
    return None


def _address(environ: Mapping[str, str]) -> str:
    if "MASTER_ADDR" in environ:
        return f"{environ['MASTER_ADDR']}:{environ.get('MASTER_PORT', str(SLURM_PORTS))}"
    hosts = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", ""))
    port = SLURM_PORTS + int(environ.get("SLURM_JOB_ID", "0")) % 10_000
    return f"{first_host(hosts)}:{port}" if hosts else ""


def first_host(hosts: str) -> str:
    """The first host of SLURM's list: ``node[07-09,12],other`` → ``node07``."""
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", re.split(r",(?![^\[]*\])", hosts)[0])
