"""Starts the ranks of tests, as torchrun would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DEADLINE = 240


def environment(rank, world_size, port, **more):
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "SLURM", "HOROVOD", "TORCHELASTIC"))},
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]),
        **more,
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*command, ranks=2, by="gloo", cwd=None, python=sys.executable, **more):
    """Processes of ``python COMMAND``, one a rank; or, for Horovod, one that starts them."""
    port = free_port()
    environments = [environment(rank, ranks, port, **more) for rank in range(ranks)]
    if by == "horovod":
        starter = ["-m", "horovod.runner.launch", "-np", str(ranks), "--gloo", python]
        command, environments = [*starter, *command], [_without_ranks(environments[0])]
    return [
        subprocess.Popen(
            [python, *command],
            env=own,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in environments
    ]


def _without_ranks(own):
    return {key: value for key, value in own.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}


def ended(processes, deadline=DEADLINE):
    """Exit status, output and errors of each; none is left behind."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=deadline)
            found.append((process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    return found


def run(*command, **how):
    return ended(start(*command, **how))
