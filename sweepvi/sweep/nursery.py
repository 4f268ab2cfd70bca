"""The nursery: a process that has imported what workers need, and makes them by forking; ``python -m … nursery FD``.

Importing torch takes seconds of a processor. One process does it while the controller does the same, and a worker that
takes the place of a dead one is there at once. It has no threads and touches no device, so that forking it is safe;
workers on a CUDA device are started by themselves, because the device must be pinned before torch is imported.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Any


def main() -> None:
    """Make workers for whoever is at the other end of a socket, until nobody is."""
    line = socket.socket(fileno=int(sys.argv[1]))
    # Ctrl-C is the controller's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from sweepvi.sweep import worker

    worker.import_everything()
    # What there is now is never looked through again, and stays shared with the workers.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, 1 << 16, 1)
        if not message:
            return
        request = json.loads(message)
        if request["kind"] == "worker":
            _reply(line, pid=_forked(line, descriptors[0]))
        else:
            _reply(line, status=_status(request["pid"]))


def _forked(line: socket.socket, descriptor: int) -> int:
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    # A worker: it shares nothing with the nursery from here on.
    status = 1
    try:
        line.close()
        os.setsid()
        from sweepvi.sweep import worker

        worker.serve(descriptor)
        status = 0
    finally:
        os._exit(status)


def _status(pid: int) -> int | None:
    """The exit status of a worker that is dead; negative is the signal that killed it."""
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status)


def _reply(line: socket.socket, **content: Any) -> None:
    line.sendall(json.dumps(content).encode() + b"\n")


if __name__ == "__main__":
    main()
