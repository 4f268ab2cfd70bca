"""Slots: the places on this machine where a worker can run, and the processes in them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from sweepvi.sweep.protocol import Answer, Setup, Turn
from sweepvi.sweep.settings import WorkerSettings


@dataclass(frozen=True)
class Slot:
    """A place for one worker."""

    number: int
    device: int | None
    """CUDA device; None is a processor."""

    def environment(self, threads: int) -> dict[str, str]:
        """Environment variables of its worker: set before torch is imported, which reads them once."""
        devices = "" if self.device is None else str(self.device)
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        # A device's number, as torch counts, is that of the list: 0 is the only one.
        return {**os.environ, **counts, "CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[int]:
    """The CUDA devices that this process may use, by number."""
    import torch

    return list(range(torch.cuda.device_count()))


def slots_of(settings: WorkerSettings, cuda: bool) -> list[Slot]:
    """The slots of this machine.

    Args:
        settings: which are wanted.
        cuda: whether fits are to run on CUDA devices; otherwise each takes a processor.

    """
    if cuda:
        chosen = devices() if settings.gpus == "auto" else list(settings.gpus)
        places: list[int | None] = [device for device in chosen for _ in range(settings.per_device)]
        places += [None] * (settings.cpus or 0)
    else:
        places = [None] * (processors() if settings.cpus is None else settings.cpus)
    return [Slot(number, device) for number, device in enumerate(places)]


def threads_of(slots: int) -> int:
    """Threads of torch in each of so many workers."""
    return max(1, processors() // max(1, slots))


@dataclass
class Process:
    """A worker's process, with the line to it."""

    slot: Slot
    started: float
    popen: subprocess.Popen[bytes]
    connection: Connection
    turns: int = 0
    """How often it has spoken."""
    trials: int = 0
    """Fits that it has been given."""
    heard: float = field(default_factory=time.monotonic)
    """When it was last spoken to."""

    @classmethod
    def start(cls, slot: Slot, threads: int, output: IO[bytes]) -> Process:
        """Start a worker; it imports what it needs while others do other things, and waits for its setup."""
        ours, theirs = socket.socketpair()
        with theirs:
            popen = subprocess.Popen(
                [sys.executable, "-m", "sweepvi.sweep.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=_with_package(slot.environment(threads)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Signals of the terminal are for the controller.
                start_new_session=True,
            )
        return cls(slot, time.monotonic(), popen, Connection(ours.detach()))

    def send(self, message: Setup | Answer) -> bool:
        """Say something; whether there is still somebody to hear it."""
        self.heard = time.monotonic()
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> Turn | None:
        """What it says; None if it has died."""
        try:
            found = self.connection.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None
        self.turns += 1
        self.heard = time.monotonic()
        return found

    def has_grown(self, settings: WorkerSettings) -> bool:
        """Whether it has more memory than is its share, and should be replaced when it has nothing to do."""
        share = settings.memory * 2**30 if settings.memory is not None else 0.8 * _memory() / max(1, processors())
        return _resident(self.popen.pid) > 0.9 * share

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.connection.close()

    def epitaph(self) -> str:
        """How it died, in words."""
        code = self.popen.wait()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its worker was killed by {signal.Signals(-code).name}{_memory_hint(-code)}"
        return f"its worker ended with status {code}"


class Crew:
    """Workers in their slots. A context: outside, there are none.

    Args:
        slots: where to start workers right away; more can be started before it is known which are wanted.

    """

    def __init__(self, slots: Sequence[Slot] = ()) -> None:
        self.processes: dict[int, Process] = {}
        """By slot."""
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the crew
        self._threads = threads_of(len(slots))
        for slot in slots:
            self._start(slot)

    @classmethod
    def early(cls, overrides: Sequence[str]) -> Crew:
        """Workers for a command line that is yet to be read: as many as there will be, if it asks for nothing else."""
        special = any(text.lstrip("+").startswith("workers.") or "cuda" in text for text in overrides)
        return cls([] if special else [Slot(number, None) for number in range(processors())])

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._output.close()

    def fill(self, slots: Sequence[Slot], setup: Setup) -> None:
        """Have a worker in each of these slots, and none elsewhere."""
        wanted = {slot.number: slot for slot in slots}
        if threads_of(len(slots)) != self._threads:
            self.end()
        self._threads = threads_of(len(slots))
        for number, process in list(self.processes.items()):
            if wanted.get(number) != process.slot:
                self.processes.pop(number).kill()
        for number, slot in wanted.items():
            if number not in self.processes:
                self._start(slot)
            self.processes[number].send(setup)

    def replace(self, number: int, setup: Setup) -> None:
        """End a worker, dead or alive, and start another one in its slot."""
        process = self.processes.pop(number)
        process.kill()
        self._start(process.slot)
        self.processes[number].send(setup)

    def end(self) -> None:
        """End all workers, at once: what they have is either told, or of no account."""
        for process in self.processes.values():
            process.kill()
        self.processes.clear()

    def output(self) -> bytes:
        """What workers have printed so far."""
        self._output.seek(0)
        return self._output.read()

    def _start(self, slot: Slot) -> None:
        self.processes[slot.number] = Process.start(slot, self._threads, self._output)


def _memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _resident(pid: int) -> int:
    """Bytes that a process has in memory; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _memory_hint(number: int) -> str:
    return ", as the system does where memory runs out" if number == signal.SIGKILL else ""


def _with_package(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a new Python finds this package."""
    here = str(Path(__file__).parents[2])
    paths = [here, *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}
