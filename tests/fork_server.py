"""A Python that has imported everything already: of each command that is asked for, a copy of it is made.

Importing torch and Pyro takes longer than most of the commands that are tested. Here ``python …`` is a small program
that hands its arguments, environment, folder and open files to a server, which forks; the copy then runs as a new
interpreter would, and starts others of its kind as ``sys.executable``. It is sent what signals the program is sent, and
ends with it.

    with fork_server(folder) as python:      # the path of an executable
        subprocess.run([python, "-m", "sweepvi", …])
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

CLIENT = """
import json, os, signal, socket, sys
place, *arguments = sys.argv[1:]
if arguments[0].startswith("-") and arguments[0] not in ("-c", "-m", "-u"):
    os.execv(sys.executable, [sys.executable, *arguments])
numbers = [int(name) for name in os.listdir("/proc/self/fd")]
files = [number for number in numbers if os.path.exists(f"/proc/self/fd/{number}")]
server = socket.socket(socket.AF_UNIX)
server.connect(place)
asked = {
    "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ),
    "numbers": files, "leads": os.getsid(0) == os.getpid(),
}
content = json.dumps(asked).encode()
socket.send_fds(server, [len(content).to_bytes(8, "big")], files)
server.sendall(content)
copy = int.from_bytes(server.recv(4), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    # Also where it is ignored here: the copy may not ignore it.
    signal.signal(number, lambda number, _: os.kill(copy, number))
status = server.recv(4)
sys.exit(int.from_bytes(status, "big") if status else 70)
"""


MOST_FILES = 64


@contextmanager
def fork_server(folder):
    """An executable that does what this Python does, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    place, client, python = folder / "socket", folder / "client.py", folder / "python"
    client.write_text(CLIENT)
    quoted = " ".join(map(shlex.quote, [sys.executable, "-IS", str(client), str(place)]))
    python.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
    python.chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(place)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        while not place.exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield python
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def started():
    """The executable of a server that stays until this process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(fork_server(Path(tempfile.mkdtemp(prefix="python-"))))


def serve(place):
    """Fork for everyone who asks, until killed."""
    import arviz_stats.base.array
    import hydra.core.override_parser.overrides_parser
    import matplotlib.figure
    import omegaconf.grammar_parser
    import optuna
    import pyro
    import torch._dynamo

    import sweepvi.cli
    import sweepvi.engine
    import sweepvi.report

    del arviz_stats, hydra, matplotlib, omegaconf, optuna, pyro, sweepvi
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{place}.new")
    listening.listen(8)
    Path(f"{place}.new").rename(place)
    while True:
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            answer(asking, place)
        asking.close()


def answer(asking, place):
    """Run what is asked for in a process of its own, for as long as the one that asks is there; tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, *_ = socket.recv_fds(asking, 8, MOST_FILES)
    asked = json.loads(read(asking, int.from_bytes(length, "big")))
    child = os.fork()
    if child == 0:
        asking.close()
        if asked.pop("leads"):
            os.setsid()
        take_over(dict(zip(asked.pop("numbers"), files, strict=True)))
        sys.executable = str(Path(place).with_name("python"))
        os._exit(run(**asked))
    for file in files:
        os.close(file)
    asking.sendall(child.to_bytes(4, "big"))
    ended = os.pidfd_open(child)
    if ended not in select.select([asking, ended], [], [])[0]:
        end(child, asked["leads"])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(BrokenPipeError):
        asking.sendall((status if status >= 0 else 128 - status).to_bytes(4, "big"))
    os._exit(0)


def end(child, leads):
    """End it, and its group if it has one of its own."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL) if leads else os.kill(child, signal.SIGKILL)


def take_over(files):
    """Have open files under the numbers that they have elsewhere."""
    beyond = max([*files, *files.values()]) + 1
    moved = {number: fcntl.fcntl(file, fcntl.F_DUPFD, beyond) for number, file in files.items()}
    for file in files.values():
        os.close(file)
    for number, file in moved.items():
        os.dup2(file, number)
        os.close(file)


def read(asking, length):
    parts = b""
    while len(parts) < length:
        parts += asking.recv(length - len(parts))
    return parts


def run(arguments, folder, environment):
    """What Python does with its arguments; returns its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    # torchrun asks for output without buffers; this one is flushed at the end.
    kind, *rest = arguments = [argument for argument in arguments if argument != "-u"]
    try:
        if kind == "-m":
            sys.argv, sys.path[0] = rest, folder
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv, sys.path[0] = arguments, str(Path(kind).parent.resolve())
            runpy.run_path(kind, run_name="__main__")
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return status


if __name__ == "__main__":
    serve(sys.argv[1])
