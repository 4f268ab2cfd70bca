"""Slots: the places on this machine where a worker can run, and the processes in them."""

from __future__ import annotations

import contextlib
import json
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
from typing import IO, Any, Protocol

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
        # A device's number, as torch counts, is that of the list: 0 is the only one.
        return {**os.environ, **_threads(threads), "CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


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


class Child(Protocol):
    """A process that was started for a worker."""

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""
        ...

    def wait(self) -> int | None:
        """Its exit status, once it has ended; negative is the signal that killed it, None is not known."""
        ...


class Nursery:
    """See :mod:`sweepvi.sweep.nursery`.

    Args:
        output: takes what it and its workers print.

    """

    def __init__(self, output: IO[bytes]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            # Numbers of threads are told to each worker; here, no library is to start any.
            self._popen = _popen("nursery", theirs, {**os.environ, **_threads(1), "CUDA_VISIBLE_DEVICES": ""}, output)
        self._replies = self._line.makefile("rb")
        self._unborn: list[Born] = []
        self._ended = False

    def born(self, theirs: socket.socket) -> Born:
        """A worker that serves the other end of a socket; it is there when the nursery has imported everything."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._line, [json.dumps({"kind": "worker"}).encode()], [theirs.fileno()])
        born = Born(self)
        self._unborn.append(born)
        return born

    def status(self, pid: int) -> int | None:
        """The exit status of a worker; waits for its end."""
        if self._ended:
            return None
        try:
            self._line.sendall(json.dumps({"kind": "status", "pid": pid}).encode())
        except BrokenPipeError:
            return None
        return self.reply().get("status")

    def name_all(self) -> None:
        """Hear the numbers of all workers that were asked for; waits for them."""
        while self._unborn:
            self._unborn.pop(0).known = self.reply().get("pid")

    def reply(self) -> dict[str, Any]:
        """What it says next; nothing if it is dead."""
        try:
            return json.loads(self._replies.readline() or b"{}")
        except (ConnectionResetError, ValueError):
            return {}

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked for workers."""
        return self._popen.poll() is None

    def end(self) -> None:
        """End it, at once; what it has said before is heard, and those who were not born will not be."""
        self._popen.kill()
        self._popen.wait()
        self.name_all()
        self._replies.close()
        self._line.close()
        self._ended = True


class Born:
    """A worker from the nursery."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self.known: int | None = None

    @property
    def pid(self) -> int:
        """See :attr:`Child.pid`; 0 if it was never born."""
        self._nursery.name_all()
        return self.known or 0

    def wait(self) -> int | None:
        """See :meth:`Child.wait`."""
        return self._nursery.status(self.pid) if self.pid else None


@dataclass
class Process:
    """A worker's process, with the line to it."""

    slot: Slot
    child: Child
    connection: Connection
    turns: int = 0
    """How often it has spoken."""
    trials: int = 0
    """Fits that it has been given."""
    heard: float = field(default_factory=time.monotonic)
    """When it was last spoken to."""

    @classmethod
    def start(cls, slot: Slot, threads: int, output: IO[bytes], nursery: Nursery | None) -> Process:
        """Start a worker, in the nursery if there is one; it waits for its setup."""
        ours, theirs = socket.socketpair()
        with theirs:
            if nursery is not None:
                child: Child = nursery.born(theirs)
            else:
                child = _popen("worker", theirs, slot.environment(threads), output)
        return cls(slot, child, Connection(ours.detach()))

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
        return _resident(self.child.pid) > 0.9 * share

    def kill(self) -> None:
        """End it at once, with all that it has started."""
        self.connection.close()
        if self.child.pid > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def epitaph(self) -> str:
        """How it died, in words."""
        code = self.child.wait()
        if code is None:
            return "its worker is gone"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its worker was killed by {signal.Signals(-code).name}{_memory_hint(-code)}"
        return f"its worker ended with status {code}"


def _popen(module: str, theirs: socket.socket, environment: Mapping[str, str], output: IO[bytes]) -> Any:
    """Start a module of this package with its end of a socket, in a session of its own: signals are not for it."""
    return subprocess.Popen(
        [sys.executable, "-m", f"sweepvi.sweep.{module}", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env=_with_package(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _threads(count: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count))


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
        self._nursery: Nursery | None = None
        for slot in slots:
            self._start(slot)

    @classmethod
    def early(cls, overrides: Sequence[str]) -> Crew:
        """Workers for a command line that is yet to be read: as many as there will be, if it asks for nothing else."""
        special = any(
            text.lstrip("+").startswith(("workers.", "hydra/launcher")) or "cuda" in text for text in overrides
        )
        return cls([] if special else [Slot(number, None) for number in range(processors())])

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._output.close()

    def fill(self, slots: Sequence[Slot], setup: Setup) -> None:
        """Have a worker in each of these slots, and none elsewhere."""
        wanted = {slot.number: slot for slot in slots}
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
        if self._nursery is not None:
            # It may have imported nothing yet; and nobody waits for that.
            self._nursery.end()
            self._nursery = None
        for process in self.processes.values():
            process.kill()
        self.processes.clear()

    def output(self) -> bytes:
        """What workers have printed so far."""
        self._output.seek(0)
        return self._output.read()

    def _start(self, slot: Slot) -> None:
        if slot.device is None and (self._nursery is None or not self._nursery.is_alive):
            self._nursery = Nursery(self._output)
        nursery = self._nursery if slot.device is None else None
        self.processes[slot.number] = Process.start(slot, self._threads, self._output, nursery)


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
