"""A rank that dies ends all of them, soon and with a reason; nothing that was computed before is lost."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from fork_server import started
from rank_runs import HERE, ended, start
from safetensors.torch import load_file

PROGRAM = Path(__file__).parent / "programs" / "dying.py"
SOON = 30


def demand_equal(cut, whole):
    one, other = (load_file(folder / "params.safetensors") for folder in (cut, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (cut / "losses.csv").read_text() == (whole / "losses.csv").read_text()
    result = json.loads((cut / "result.json").read_text())
    assert (result["status"], result["world_size"], result["ranks_agree"]) == ("finished", 2, True)


@pytest.mark.parametrize("engine", ["eager", "lanes"])
def test_a_rank_is_killed_and_the_fit_resumes(engine, tmp_path):
    program = str(HERE / "rank_death.py"), str(tmp_path), engine
    processes = start(*program, python=started())
    processes[1].wait(timeout=240)
    died = time.monotonic()
    [(first, _, said), (other, _, _)] = ended(processes)
    assert time.monotonic() - died < SOON
    assert (first, other) == (1, 128 + signal.SIGKILL)
    assert said.startswith("sweepvi (rank 0): another rank is gone")
    assert "Traceback" not in said
    assert not (tmp_path / "cut/result.json").exists()

    # Another number of ranks would draw other numbers.
    [(status, _, said)] = ended(start(*program, "resume", ranks=1, python=started()))
    assert status == 1
    assert "the run to resume was on 2 ranks, this is on 1" in said

    for status, _, said in ended(start(*program, "resume", python=started())):
        assert status == 0, said
    demand_equal(tmp_path / "cut", tmp_path / "whole")


def command(folder, *words):
    settings = ["engine=eager", "engine.steps=60", "engine.checkpoint_every=7", "engine.score_draws=20"]
    model = ["model=custom", f"model.path={PROGRAM}:model", f"model.data={PROGRAM}:data", "optimizer=adam"]
    run = ["hydra.run.dir=" + str(folder)] if not words else [*words, *model[1:3]]
    return ["-m", "sweepvi", "-q", *([*settings, *model, "distributed=gloo"] if not words else []), *run]


def by_torchrun(folder, *words, restarts=0, **dying):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", f"--max-restarts={restarts}"]
    return ended(start(*torchrun, *command(folder, *words), ranks=1, **dying), deadline=200)[0]


@pytest.mark.long
def test_a_fit_that_diverges_on_one_rank_is_written_whole(tmp_path):
    status, _, said = by_torchrun(tmp_path, DIE_RANK="1", DIE_AT="30", DIE_HOW="nan")
    assert status == 1, said
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["ranks_agree"]) == ("diverged", True)
    assert "rank 1: " in result["message"]


@pytest.mark.long
def test_ranks_are_killed_at_random(tmp_path):
    """Ten times: with restarts, the job ends as if nothing had been; without, it ends, and can be resumed."""
    status, _, said = by_torchrun(tmp_path / "whole")
    assert status == 0, said
    chance = random.Random(0)
    for turn in range(10):
        folder, how = tmp_path / str(turn), chance.choice(["kill", "raise"])
        dying = {"DIE_RANK": str(chance.randrange(2)), "DIE_AT": str(chance.randrange(4, 60)), "DIE_HOW": how}
        status, _, said = by_torchrun(folder, restarts=turn % 2, **dying)
        if turn % 2 == 0:
            assert status == 1, said
            if how == "raise":
                assert f"sweepvi (rank {dying['DIE_RANK']}): " in said
                assert "LookupError: a bug of the model's (dying.py:" in said
            assert not (folder / "result.json").exists()
            if not (folder / "checkpoint.safetensors").exists():
                continue
            status, _, said = by_torchrun(folder, f"resume={folder}")
        assert status == 0, said
        demand_equal(folder, tmp_path / "whole")
