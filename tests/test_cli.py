"""The command line where all is well, and where a fit ends early: as a user runs it, in processes of its own."""

from __future__ import annotations

import csv
import fcntl
import json
import logging
import os
import pty
import random
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
import yaml
from fork_server import started
from safetensors.torch import load_file

import sweepvi
from sweepvi import cli
from sweepvi.cli import main

FILES = {
    "checkpoint.safetensors",
    "config.yaml",
    "loss.png",
    "losses.csv",
    "params.safetensors",
    "posterior.csv",
    "result.json",
    "sweepvi.log",
}
UNFINISHED = FILES - {"posterior.csv"}
RESULT_KEYS = {
    "status",
    "message",
    "elbo",
    "elbo_se",
    "attempts",
    "frozen",
    "elbo_per_datum",
    "data_size",
    "compiled_from",
    "restarts",
    "r_hat",
    "verdict",
    "world_size",
    "ranks_agree",
    "stopped",
    "steps",
    "seconds",
    "seed",
    "engine",
    "skipped",
    "notes",
    "steps_per_second",
    "config_hash",
    "versions",
    "git_commit",
}
SHORT = ["model=eight_schools", "engine.steps=30", "engine.score_draws=5"]
# Long enough to be stopped half way: a second or two, with a checkpoint every 40 ms.
LONG = ["model=eight_schools", "engine.steps=1000", "engine.score_draws=5", "engine.checkpoint_every=20"]
DIVERGING = [*SHORT, "optimizer=sgd", "optimizer.lr=1e20"]
DEADLINE = 60
MINE = """
import pyro, pyro.distributions as dist, torch

data = {"x": torch.randn(20)}

def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
"""
FAILING = """
import pyro, pyro.distributions as dist

calls = 0

def model():
    global calls
    calls += 1
    pyro.sample("x", dist.Normal(0.0, 1.0))
    if calls > 25:
        raise RuntimeError("the sensor\\nwas off")  # line 11
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(words, cwd, **options):
    command = [started(), "-m", "sweepvi", *words]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=ENVIRONMENT,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
    )


def run(words, cwd, status=0):
    process = start(words, cwd)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == status, out + err
    return out, err


def summary(folder):
    return json.loads((folder / "result.json").read_text())


def numbers(folder):
    """All that a run computed; equal for runs that computed the same, to the last bit."""
    result = summary(folder)
    written = {name: (folder / name).read_bytes() for name in ("losses.csv", "params.safetensors")}
    return written | {key: result[key] for key in ("status", "elbo", "elbo_se", "steps", "skipped")}


def until(condition, process):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def short(place):
    """A finished run, with what it printed. Other tests read it, and copy it before they change it."""
    printed = run([*SHORT, "hydra.run.dir=short"], place)
    return place / "short", *printed


@pytest.fixture(scope="module", params=["lanes", "eager"])
def engine(request):
    return f"engine={request.param}"


@pytest.fixture(scope="module")
def whole(place, engine):
    """A run that nothing interrupted."""
    folder = f"whole-{engine.partition('=')[2]}"
    run([*LONG, engine, "-q", f"hydra.run.dir={folder}"], place)
    return numbers(place / folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copied(short, here):
    """A copy of the finished run, as ``short`` in the current folder."""
    shutil.copytree(short[0], here / "short")
    return here / "short"


# What a run leaves and says


def test_the_run_folder_and_the_result(short):
    folder, _, _ = short
    assert {file.name for file in folder.iterdir()} == FILES
    result = summary(folder)
    assert set(result) == RESULT_KEYS
    assert (result["status"], result["message"], result["steps"], result["seed"]) == ("finished", "", 30, 0)
    assert result["versions"]["sweepvi"] == sweepvi.__version__
    assert result["elbo_se"] > 0
    lines = (folder / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss,lr"
    assert [line.split(",")[0] for line in lines[1:]] == [str(step) for step in range(1, 31)]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "step 30/30" in (folder / "sweepvi.log").read_text()


def test_plain_lines_where_there_is_no_terminal(short):
    folder, out, err = short
    result = summary(folder)
    each = f"{result['elbo'] / 8:.4g} per datum (of 8)"
    assert out.splitlines()[0] == f"finished: ELBO {result['elbo']:.2f} ± {result['elbo_se']:.2f}, {each}"
    assert re.fullmatch(r"30 steps in \d+\.\d s \([\d,]+ steps/s\)", out.splitlines()[1])
    assert out.splitlines()[2] == "trust: caution"
    assert out.splitlines()[3].startswith("  because one start only")
    assert out.splitlines()[4:6] == ["", "posterior, 5 draws of the guide, unweighted:"]
    assert out.splitlines()[-3:] == ["", "saved in short", "rerun with: python -m sweepvi rerun=short"]
    assert "\x1b" not in err
    assert err.splitlines()[0] == "starting at step 0 of 30"
    assert re.fullmatch(r"step 30/30  loss -?\d+\.\d\d  [\d,]+ steps/s  0 s left", err.splitlines()[1])
    assert err.splitlines()[2:] == ["fit finished"]


def test_quiet_prints_nothing_and_computes_the_same(short, tmp_path):
    assert run([*SHORT, "-q", "hydra.run.dir=quiet"], tmp_path) == ("", "")
    assert {file.name for file in (tmp_path / "quiet").iterdir()} == FILES
    assert numbers(tmp_path / "quiet") == numbers(short[0])


def test_a_bar_that_moves_on_a_terminal(tmp_path):
    words = ["model=eight_schools", "engine.steps=400", "engine.score_draws=5"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = start(words, tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, text=False)
    os.close(theirs)
    screen = read_to_the_end(ours).decode()
    os.close(ours)
    assert process.wait() == 0, screen
    assert "steps/s" in screen.split("finished:")[0]
    steps = {int(step) for step in re.findall(r"(\d+)/400", screen)}
    assert len(steps - {0, 400}) >= 2, f"shows no steps on the way: {sorted(steps)}"
    assert "starting at step" not in screen


def read_to_the_end(terminal):
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's way of saying that the other end is closed
            return text
        if not part:
            return text
        text += part


def test_version_from_module_and_script(tmp_path):
    assert run(["--version"], tmp_path) == (f"{sweepvi.__version__}\n", "")
    script = shutil.which("sweepvi", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the script is not installed beside this Python")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{sweepvi.__version__}\n", "")


def test_cfg_job_prints_the_configuration_and_runs_nothing(short, tmp_path):
    out, _ = run([*SHORT, "--cfg", "job", "sweep=quick"], tmp_path)
    shown = yaml.safe_load(out)
    assert {group: shown.pop(group) for group in ("sweep", "workers")}["sweep"]["n_trials"] == 30
    assert shown["optimizer"].pop("search") == {"lr": "tag(log, interval(1e-3, 0.3))"}
    assert shown == yaml.safe_load((short[0] / "config.yaml").read_text())
    assert list(tmp_path.iterdir()) == []


# The same again


def test_rerun_gives_the_same_and_overrides_change_it(copied, here):
    assert main(["rerun=short", "-q", "hydra.run.dir=again"]) == 0
    assert main(["rerun=again", "-q", "hydra.run.dir=third"]) == 0
    assert numbers(here / "again") == numbers(here / "third") == numbers(copied)
    assert main(["rerun=short", "-q", "engine.seed=1", "optimizer=sgd", "hydra.run.dir=other"]) == 0
    before, after = (yaml.safe_load((here / name / "config.yaml").read_text()) for name in ("short", "other"))
    assert after["engine"] == {**before["engine"], "seed": 1}
    assert after["optimizer"]["name"] == "sgd"
    assert {g: after[g] for g in ("model", "guide", "estimator")} == {
        g: before[g] for g in ("model", "guide", "estimator")
    }
    assert numbers(here / "other")["losses.csv"] != numbers(copied)["losses.csv"]


def test_rerun_in_another_process_gives_the_same(short, place):
    run(["rerun=short", "-q", "hydra.run.dir=rerun"], place)
    assert numbers(place / "rerun") == numbers(short[0])


def test_resuming_a_finished_run_changes_nothing(copied, capsys):
    before = numbers(copied)
    assert main(["resume=short"]) == 0
    assert numbers(copied) == before
    assert {file.name for file in copied.iterdir()} == FILES
    assert capsys.readouterr().out.startswith("finished: ELBO ")


def test_more_steps_continue_a_finished_run(copied, here):
    assert main(["resume=short", "engine.steps=50", "-q"]) == 0
    assert main([*SHORT, "engine.steps=50", "-q", "hydra.run.dir=direct"]) == 0
    assert summary(copied)["steps"] == 50
    assert numbers(copied) == numbers(here / "direct")


# Stopped half way


def test_killed_and_resumed_equals_uninterrupted(whole, engine, here):
    process = start([*LONG, engine, "hydra.run.dir=run"], here)
    until((here / "run/checkpoint.safetensors").exists, process)
    time.sleep(random.random() * 0.8)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (here / "run/result.json").exists()
    assert main(["resume=run", "-q"]) == 0
    assert "continuing after step" in (here / "run/sweepvi.log").read_text()
    assert numbers(here / "run") == whole
    # A temporary file of the save that was cut short may be left.
    assert {file.name for file in (here / "run").iterdir()} >= FILES


def test_killed_before_the_first_checkpoint_starts_again(whole, engine, here):
    process = start([*LONG, engine, "engine.checkpoint_every=0", "hydra.run.dir=run"], here)
    assert process.stderr.readline() == "starting at step 0 of 1000\n"
    process.kill()
    process.communicate()
    assert not (here / "run/checkpoint.safetensors").exists()
    assert main(["resume=run", "-q"]) == 0
    assert numbers(here / "run") == whole


def test_ctrl_c_saves_and_can_be_resumed(whole, engine, tmp_path):
    process = start([*LONG, engine, "engine.log_every=50", "hydra.run.dir=run"], tmp_path)
    assert process.stderr.readline() == "starting at step 0 of 1000\n"
    # At the first boundary of a checkpoint or chunk after 50.
    assert re.match(r"step [56]\d/1000", process.stderr.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "fit interrupted"
    assert "Traceback" not in err
    result = summary(tmp_path / "run")
    assert result["status"] == "interrupted"
    assert 50 <= result["steps"] < 1000
    assert out.splitlines()[0] == f"interrupted: interrupted after step {result['steps']}"
    assert out.splitlines()[-1] == "resume with: python -m sweepvi resume=run"
    assert {file.name for file in (tmp_path / "run").iterdir()} == UNFINISHED
    run([*shlex.split(out.splitlines()[-1].partition(": ")[2])[3:], "-q"], tmp_path)
    assert numbers(tmp_path / "run") == whole


# Failures of the fit


def test_divergence_is_status_1_and_names_step_and_parameter(here, capsys):
    assert main([*DIVERGING, "hydra.run.dir=run"]) == 1
    result = summary(here / "run")
    assert result["status"] == "diverged"
    assert result["elbo"] is None
    assert re.match(rf"step {result['steps'] + 1}: .*AutoNormal\.(locs|scales)\.\w+", result["message"])
    assert capsys.readouterr().out.startswith(f"diverged: {result['message']}\n")
    assert {file.name for file in (here / "run").iterdir()} == UNFINISHED


def test_raise_at_divergence_is_one_line(tmp_path):
    out, err = run([*DIVERGING, "engine.on_nonfinite=raise", "-q", "hydra.run.dir=run"], tmp_path, status=1)
    assert out == ""
    assert re.fullmatch(r"sweepvi: step \d+: .+\n", err)
    assert (tmp_path / "run/checkpoint.safetensors").exists()


def test_an_error_of_the_model_is_one_line_and_leaves_traceback_and_checkpoint(tmp_path):
    (tmp_path / "mine.py").write_text(FAILING)
    out, err = run(
        ["engine=eager", "model=custom", "model.path=mine.py:model", "engine.steps=100", "hydra.run.dir=run"],
        tmp_path,
        status=1,
    )
    last = err.splitlines()[-1]
    assert last.startswith("sweepvi: ")
    assert "RuntimeError: the sensor was off (mine.py:11)" in last
    assert "Traceback" not in out + err
    log = (tmp_path / "run/sweepvi.log").read_text()
    assert "Traceback" in log
    assert "the sensor\nwas off" in log
    # The error is mended; the steps before it are kept.
    (tmp_path / "mine.py").write_text(FAILING.replace("calls > 25", "False"))
    out, err = run(["resume=run", "model.path=mine.py:model", "engine.score_draws=5"], tmp_path)
    assert re.match(r"continuing after step [12]\d of 100\n", err)
    assert summary(tmp_path / "run")["steps"] == 100


# Several at once


def test_multirun_runs_every_combination_and_keeps_the_best(here):
    words = [
        *SHORT,
        "-m",
        "optimizer=clipped_adam,sgd",
        "engine.seed=0,1",
        "sweep.final_seeds=0",
        "hydra.sweep.dir=all",
    ]
    out, _ = run(words, here)
    with (here / "all/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    combinations = [("clipped_adam", "0"), ("clipped_adam", "1"), ("sgd", "0"), ("sgd", "1")]
    assert [(row["optimizer"], row["engine.seed"]) for row in rows] == combinations
    assert {row["state"] for row in rows} == {"COMPLETE"}
    values = [float(row["value"]) for row in rows]
    assert len(set(values)) == 4
    best = yaml.safe_load((here / "all/best.yaml").read_text())
    optimizer, seed = combinations[values.index(max(values))]
    assert (best["optimizer"]["name"], str(best["engine"]["seed"])) == (optimizer, seed)
    # A run among many is the run alone.
    [printed] = re.findall(r"python -m sweepvi (rerun=\S+best.yaml)", out)
    assert main([printed, "-q", "hydra.run.dir=alone"]) == 0
    assert summary(here / "alone")["elbo"] == pytest.approx(max(values), abs=1e-4)


def test_two_runs_started_at_once_keep_apart(short, tmp_path):
    processes = [start(SHORT, tmp_path) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, out + err
    folders = [path.parent for path in (tmp_path / "outputs").glob("*/*/result.json")]
    assert len(folders) == 2
    for folder in folders:
        assert {file.name for file in folder.iterdir()} == FILES
        assert numbers(folder) == numbers(short[0])
        assert (folder / "sweepvi.log").read_text().count("starting at step") == 1


# Choices


def test_float64(here):
    assert main([*SHORT, "engine.dtype=float64", "-q", "hydra.run.dir=run"]) == 0
    assert {value.dtype for value in load_file(here / "run/params.safetensors").values()} == {torch.float64}


def test_an_option_in_the_users_folder(here):
    (here / "own/optimizer").mkdir(parents=True)
    (here / "own/optimizer/careful.yaml").write_text("name: clipped_adam\nlr: 0.001\nclip_norm: 1.0\n")
    assert main([*SHORT, "--config-dir", "own", "optimizer=careful", "-q", "hydra.run.dir=run"]) == 0
    written = yaml.safe_load((here / "run/config.yaml").read_text())["optimizer"]
    assert (written["name"], written["lr"], written["clip_norm"]) == ("clipped_adam", 0.001, 1.0)
    rates = {line.split(",")[2] for line in (here / "run/losses.csv").read_text().splitlines()[1:]}
    assert rates == {"0.001"}
    assert main(["rerun=run", "-q", "hydra.run.dir=again"]) == 0
    assert numbers(here / "again") == numbers(here / "run")


def test_the_printed_command_repeats_a_run_of_the_users_model(tmp_path):
    folder = tmp_path / "a model's folder"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    paths = ["model.path=mine.py:model", "model.data=mine.py:data"]
    out, _ = run(["model=custom", *paths, "engine.steps=30", "engine.score_draws=5"], folder)
    [printed] = re.findall(r"^rerun with: (.+)$", out, re.MULTILINE)
    words = shlex.split(printed)
    assert words[:3] == ["python", "-m", "sweepvi"]
    assert words[4:] == paths
    again, _ = run(words[3:], folder)
    runs = [folder / re.search(r"^saved in (.+)$", text, re.MULTILINE)[1] for text in (out, again)]
    assert runs[0] != runs[1]
    assert numbers(runs[0]) == numbers(runs[1])


@pytest.mark.parametrize("said", [None, "5"])
def test_threads_that_wait_leave_the_processor_soon_unless_the_user_says_otherwise(monkeypatch, said):
    """Torch reads it when it is loaded, which no command does before (``test_layers.py``)."""

    class LeftError(Exception):
        pass

    def leave(status):
        raise LeftError(status)

    name, value = cli.WAITING
    monkeypatch.delenv(name, raising=False)
    if said is not None:
        monkeypatch.setenv(name, said)
    seen = []
    monkeypatch.setattr(cli, "main", lambda arguments: seen.append(os.environ[name]) or 0)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    with pytest.raises(LeftError):
        cli.console()
    assert seen == [said or value]
    monkeypatch.delenv(name)
