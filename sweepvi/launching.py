"""Agents of a sweep as jobs of a Hydra launcher: on the nodes of a cluster, say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepvi.errors import Problem
from sweepvi.sweep.database import is_shared
from sweepvi.sweep.settings import SweepSettings

BASIC = "basic"
"""Hydra's launcher that starts nothing."""

LAUNCHED = ("hydra/launcher", "hydra.launcher", "hydra.sweep", "sweep.agents")
"""What is for the one who launches, and not for agents."""


@dataclass(frozen=True)
class Agent:
    """What a job runs: the same sweep again, in a process of its own."""

    arguments: tuple[str, ...]
    """Of the command."""
    place: str
    """The folder that it is run in, if there is such a folder on the job's machine."""

    def __call__(self) -> int:
        """Its exit status."""
        place = self.place if Path(self.place).is_dir() else None
        return subprocess.run([sys.executable, "-m", "sweepvi", *self.arguments], cwd=place, check=False).returncode


def agent_of(arguments: Sequence[str], folder: Path) -> Agent:
    """The agent of a command line, in a sweep's folder."""
    kept = [text for text in arguments if not text.lstrip("+~").startswith(LAUNCHED)]
    return Agent((*kept, f"hydra.sweep.dir={folder.resolve()}"), str(Path.cwd()))


def task_of(agent: Agent, count: int) -> Callable[[Any], int]:
    """What Hydra is told to run, with how many jobs it is; the sweeper leaves in ``returned`` how they ended."""

    def task(_: Any) -> int:
        return agent()

    # Hydra asks a task for its code, which an object has not.
    vars(task).update(agents=count, returned=[])
    return task


def problems(launcher: str, settings: SweepSettings) -> list[Problem]:
    """What is wrong with starting agents."""
    if launcher == BASIC:
        message = "are started by a launcher: hydra/launcher=submitit_slurm, submitit_local or ray; or by hand"
        return [Problem.of("sweep.agents", settings.agents, message)] if settings.agents != 1 else []
    if is_shared(settings.storage):
        return []
    message = f"hydra/launcher={launcher} starts agents, which share a study in PostgreSQL: postgresql://…, env:NAME"
    return [Problem.of("sweep.storage", settings.storage, message)]
