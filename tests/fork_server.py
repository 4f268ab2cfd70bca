"""A Python that has imported everything already: of each command that is asked for, a copy of it is made.

Importing torch and Pyro takes longer than most of the commands that are tested. Here ``python …`` is a small program
that hands its arguments, environment, folder and open files to a server, which forks; the copy then runs as a new
interpreter would.

    with fork_server(folder) as python:      # the path of an executable
        subprocess.run([python, "-m", "sweepvi", …])
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

CLIENT = """
import json, os, socket, sys
place, *arguments = sys.argv[1:]
server = socket.socket(socket.AF_UNIX)
server.connect(place)
asked = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
status = server.recv(4)
sys.exit(int.from_bytes(status, "big") if status else 70)
"""


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
            answer(asking)
        asking.close()


def answer(asking):
    """Run what is asked for in a process of its own, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, *_ = socket.recv_fds(asking, 8, 3)
    asked = json.loads(read(asking, int.from_bytes(length, "big")))
    child = os.fork()
    if child == 0:
        asking.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os._exit(run(**asked))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    asking.sendall((status if status >= 0 else 128 - status).to_bytes(4, "big"))
    os._exit(0)


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
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    # torchrun asks for output without buffers; this one is flushed at the end.
    kind, *rest = arguments = [argument for argument in arguments if argument != "-u"]
    try:
        if kind == "-m":
            sys.argv, sys.path[0] = rest, folder
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
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
