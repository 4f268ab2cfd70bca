"""Whatever goes wrong, every trial ends once, and nothing that was computed is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweepvi import cli
from sweepvi.sweep.records import StudyRecord

FAULTY = Path(__file__).parent / "programs" / "faulty.py"
BAD = ("model=custom", f"model.path={FAULTY}:Faulty", "engine=eager", "engine.steps=40", "engine.score_draws=20")
TRIALS = 40
LONG = (
    "model=eight_schools",
    "optimizer.lr=tag(log,interval(1e-3,1))",
    f"sweep.n_trials={TRIALS}",
    "sweep.sampler=random",
    "engine.steps=1500",
    "engine.score_draws=50",
    "sweep.finalists=0",
    "workers.lanes=8",
)


def sweep(folder, *words, status=0):
    assert cli.main(["-m", "-q", *words, f"hydra.sweep.dir={folder}"]) == status
    return StudyRecord.read(folder)


def ends(folder):
    """How often each trial has ended, by number."""
    events = [json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines()]
    numbers = [event["number"] for event in events if event["event"] == "ended"]
    return {number: numbers.count(number) for number in numbers}


def children(pid):
    """The processes that a process has started, without those that are dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            except (OSError, IndexError):
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(entry.name))
    return found


def workers_of(pid):
    """Workers are the children of the nursery, which is the controller's child."""
    return [worker for nursery in children(pid) for worker in children(nursery)]


def test_each_way_to_fail_is_said_and_disturbs_nobody(tmp_path):
    words = [*BAD, "engine.seed=0,1,2,3,4,5,6", "sweep.time_limit=10", "workers.memory=4", "sweep.finalists=0"]
    record = sweep(tmp_path / "bad", *words)
    found = {trial.params["engine.seed"]: trial for trial in record.trials}
    assert [found[seed].state for seed in (0, 6)] == ["COMPLETE", "COMPLETE"]
    assert (found[1].state, found[1].reason) == ("FAIL", "crash")
    assert "this model does not like its seed" in found[1].message
    assert (found[2].state, found[2].reason) == ("FAIL", "crash")
    assert "killed by SIGKILL" in found[2].message
    assert (found[3].state, found[3].reason) == ("FAIL", "time")
    assert (found[4].state, found[4].reason) == ("PRUNED", "diverged")
    assert (found[5].state, found[5].reason) == ("FAIL", "crash")
    assert ends(tmp_path / "bad") == dict.fromkeys(range(7), 1)


def test_a_sweep_in_which_all_fail_ends_with_the_reasons(tmp_path, capsys):
    folder = tmp_path / "all"
    mine = tmp_path / "always.py"
    mine.write_text(FAULTY.read_text().replace("if self.fault == RAISES", "if True"))
    words = ["-m", "model=custom", f"model.path={mine}:Faulty", "engine=eager", "engine.seed=1,2", "engine.steps=40"]
    assert cli.main([*words, f"hydra.sweep.dir={folder}"]) == 1
    said = capsys.readouterr()
    assert "no trial has a score" in said.out
    assert "this model does not like its seed" in said.out
    assert "Traceback" not in said.out + said.err
    assert (folder / "report.html").exists()
    assert not (folder / "best.yaml").exists()


def begun(folder, *words):
    command = [sys.executable, "-m", "sweepvi", "-m", "-q", *words, f"hydra.sweep.dir={folder}"]
    with said_by(folder).open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def said_by(folder):
    return folder.with_suffix(".txt")


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("has not come about")


def wait_for_the_end_of(family):
    wait_for(lambda: not any(map(_alive, family)), 20)


def over(folder):
    path = folder / "study.jsonl"
    return path.read_text().count('"ended"') if path.exists() else 0


def test_killed_controllers_and_workers_lose_nothing(tmp_path):
    folder = tmp_path / "killed"
    process = begun(folder, *LONG)
    wait_for(lambda: over(folder) >= 4)
    worker = workers_of(process.pid)[0]
    os.kill(worker, signal.SIGKILL)
    before = over(folder)
    wait_for(lambda: over(folder) >= before + 4)
    family = [*children(process.pid), *workers_of(process.pid)]
    process.kill()
    process.wait()
    wait_for_the_end_of(family)
    known = StudyRecord.read(folder)
    again = sweep(folder, *LONG)
    assert ends(folder) == dict.fromkeys(range(TRIALS), 1)
    for ours, theirs in zip(again.trials, known.trials, strict=False):
        assert ours.params == theirs.params
        assert theirs.state == "RUNNING" or (ours.state, ours.values) == (theirs.state, theirs.values)
    assert {trial.state for trial in again.trials} <= {"COMPLETE", "PRUNED"}


def _alive(pid):
    return Path(f"/proc/{pid}").exists()


def test_ctrl_c_ends_with_what_there_is_and_the_same_command_goes_on(tmp_path):
    folder = tmp_path / "stopped"
    process = begun(folder, *LONG)
    wait_for(lambda: over(folder) >= 2)
    family = [*children(process.pid), *workers_of(process.pid)]
    assert len(family) == 3
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in said_by(folder).read_text()
    assert (folder / "trials.csv").exists()
    assert 0 < over(folder) < TRIALS
    wait_for_the_end_of(family)


def test_two_at_once_are_refused(tmp_path, capsys):
    folder = tmp_path / "one"
    process = begun(folder, *LONG)
    try:
        wait_for(lambda: (folder / "study.jsonl").exists())
        assert cli.main(["-m", *LONG, f"hydra.sweep.dir={folder}"]) == 2
        assert "another process is running this sweep" in capsys.readouterr().err
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a file system")
def test_a_full_disk_keeps_what_was_written(tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a file system")
    try:
        process = begun(folder, *LONG)
        wait_for(lambda: over(folder) >= 2)
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        assert process.wait(timeout=60) == 1
        said = said_by(folder).read_text()
        assert "study.jsonl cannot be written: No space left on device" in said
        assert "Traceback" not in said
        known = StudyRecord.read(folder).trials
        (folder / "filler").unlink()
        # The report is larger than the disk; the trials are kept all the same.
        assert begun(folder, *LONG).wait(timeout=120) == 1
        assert ends(folder) == dict.fromkeys(range(TRIALS), 1)
        again = StudyRecord.read(folder).trials
        assert [one.values for one in again[: len(known)] if known[one.number].values] == [
            one.values for one in known if one.values
        ]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("target", ["worker", "controller", "both"])
def test_rounds_of_kills_at_random_moments(tmp_path, target):
    """Thirty in all: each study ends with every trial once, none lost, and no process left behind."""
    generator = random.Random(target)
    words = [word for word in LONG if not word.startswith(("engine.steps", "sweep.n_trials"))]
    words += ["engine.steps=3000", "sweep.n_trials=80"]
    folder, rounds, family = tmp_path / "rounds", 0, []
    while True:
        process = begun(folder, *words)
        killed = False
        while process.poll() is None and rounds < 10:
            time.sleep(generator.uniform(0.5, 8.0))
            family = [*children(process.pid), *workers_of(process.pid)]
            if target != "controller" and (workers := workers_of(process.pid)):
                _kill(generator.choice(workers))
                rounds += 1
            if target != "worker":
                process.kill()
                rounds += 1
                killed = True
                break
        status = process.wait(timeout=300)
        wait_for_the_end_of(family)
        if not killed:
            assert status == 0
            break
        known = StudyRecord.read(folder).trials if (folder / "study.jsonl").exists() else []
        assert all(count == 1 for count in (ends(folder) if known else {}).values())
    assert ends(folder) == dict.fromkeys(range(80), 1)
    assert {trial.state for trial in StudyRecord.read(folder).trials} <= {"COMPLETE", "PRUNED"}


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
