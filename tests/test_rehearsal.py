"""Machine code is run by the compiler's process before a fit sees it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_compiled import PROGRAM

from sweepvi.engine.lanes.compiled import rehearsal
from sweepvi.engine.lanes.compiled.rehearsal import CrashedError, Rehearsal
from sweepvi.engine.lanes.compiled.worker import ERROR, PACKAGE
from sweepvi.engine.lanes.compiled.worker import PROGRAM as FILE

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def code_that(does):
    return lambda path: does


def runs(tensors):
    shapes = [tuple(tensor.shape) for tensor in tensors]
    assert shapes == [layout.shape for layout in PROGRAM.layouts]
    return [torch.ones(3)]


def crashes(tensors):
    # Of others, pytest's fault handler would tell at length.
    os.kill(os.getpid(), signal.SIGKILL)


def leaves(tensors):
    os._exit(3)


def fails(tensors):
    raise RuntimeError("no kernel image\nfor this device")


def test_code_that_runs_is_let_through(monkeypatch):
    monkeypatch.setattr(rehearsal, "load_package", code_that(runs))
    Rehearsal(PROGRAM).demand(Path("any"))


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (crashes, "machine code was tried, and it crashed: SIGKILL"),
        (leaves, "machine code was tried, and it crashed: status 3"),
        (fails, "machine code was tried, and it failed: no kernel image"),
    ],
)
def test_code_that_does_not_is_not(does, said, monkeypatch):
    monkeypatch.setattr(rehearsal, "load_package", code_that(does))
    with pytest.raises(CrashedError, match=f"^{said}$"):
        Rehearsal(PROGRAM).demand(Path("any"))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from sweepvi.engine.lanes.compiled import program, rehearsal, worker
program.ChunkProgram.compile = lambda self, path: path.write_text("machine code")
rehearsal.load_package = lambda path: lambda tensors: {does}
worker.main(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("does", ["None", "os.kill(os.getpid(), signal.SIGSEGV)"])
def test_a_compiler_hands_over_what_has_run(does, tmp_path):
    (tmp_path / FILE).write_bytes(pickle.dumps(PROGRAM))
    command = [sys.executable, "-c", SCRIPT.format(does=does), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        # While its input is open, it is wanted.
        process.wait(60)
        crashed = does != "None"
        assert (process.returncode != 0) == crashed
    assert (tmp_path / PACKAGE).exists() != crashed
    assert (tmp_path / ERROR).exists() == crashed
    if crashed:
        assert "it crashed: SIGSEGV" in (tmp_path / ERROR).read_text()
