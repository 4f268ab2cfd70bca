"""``-m``: planned before Hydra is entered, one job of Hydra's, in a folder that the study itself names."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from sweepvi.cli import main
from sweepvi.errors import ConfigError, Problem
from sweepvi.sweep import running

SWEEP = ["-m", "model=eight_schools", "engine.steps=30", "workers.cpus=1", "optimizer.lr=0.1,0.2"]
ROOT = Path(__file__).parents[1]


@dataclass
class Result:
    exit_status: int
    text: str


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """What the command runs: the arguments of each call, and Hydra's configuration in it."""
    monkeypatch.chdir(tmp_path)
    made = []

    def run(plan, folder, view, *_):
        logging.getLogger("sweepvi").info("in the log")
        made.append((plan, folder, view, HydraConfig.get()))
        return Result(0, "told")

    monkeypatch.setattr(running, "run", run)
    return made


def answering(monkeypatch, answer):
    def run(*_):
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(running, "run", run)


def test_one_job_in_the_studys_folder(runs, tmp_path, capsys):
    assert main(SWEEP) == 0
    [(plan, folder, _, hydra)] = runs
    assert [params["optimizer.lr"] for params in plan.points()] == [0.1, 0.2]
    assert folder.parent == tmp_path / "multirun"
    assert Path(hydra.runtime.output_dir) == folder
    assert hydra.mode.name == "MULTIRUN"
    assert [path.name for path in folder.iterdir()] == ["sweepvi.log"]
    assert "in the log" in (folder / "sweepvi.log").read_text()
    assert capsys.readouterr().out == "told\n"


def test_the_same_command_continues_and_another_does_not(runs):
    more = ["sweep.n_trials=9", "optimizer.lr=interval(0.1,1)"]
    for words in (SWEEP, [*SWEEP, "workers.cpus=2"], [*SWEEP[:4], *more], [*SWEEP[:4], "sweep.n_trials=99", more[1]]):
        assert main(words) == 0
    folders = [folder for _, folder, *_ in runs]
    assert folders[0] == folders[1] != folders[2] == folders[3]


@pytest.mark.parametrize(
    ("given", "folder"), [("here", "here"), ("'a b/c,d'", "a b/c,d"), ("deep/STUDY/x", None), ("'it=is'", "it=is")]
)
def test_a_folder_of_the_users_choice(given, folder, runs, tmp_path):
    assert main([*SWEEP, "-q", f"hydra.sweep.dir={given}"]) == 0
    found = runs[0][1].relative_to(tmp_path)
    assert str(found) == folder if folder else (found.parts[0], found.parts[2]) == ("deep", "x")
    assert "STUDY" not in found.parts


def test_a_folder_in_an_experiment(runs, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {sweep: {dir: from_file}}\nsweep: {seed: 4}\n"
    (tmp_path / "mine/experiment/x.yaml").write_text(text)
    assert main([*SWEEP, "--config-dir", "mine", "experiment=x"]) == 0
    assert runs[0][1] == tmp_path / "from_file"
    assert runs[0][0].settings.seed == 4


def test_hydras_own_settings_reach_the_job(runs):
    assert main([*SWEEP, "hydra.job.name=other", "hydra.verbose=true"]) == 0
    assert runs[0][3].job.name == "other"
    assert runs[0][3].verbose is True
    assert (runs[0][1] / "other.log").exists()


def test_structures_are_composed_while_the_sweep_runs(runs, monkeypatch):
    """Within Hydra's job, which goes on as it was."""
    monkeypatch.setattr("sweepvi.sweep.check.MOST", 2)

    def run(plan, *_):
        before = HydraConfig.get()
        chosen = {"optimizer": "adagrad_rmsprop"}
        [eta] = plan.dimensions(chosen)
        made = plan.configuration({**chosen, eta.name: 0.5})
        assert HydraConfig.get() == before
        return Result(0, f"eta {made['optimizer']['eta']}")

    monkeypatch.setattr(running, "run", run)
    options = "optimizer=adam,sgd,adamw,adagrad_rmsprop"
    assert main([*SWEEP[:4], options, "sweep.n_trials=9", "-q"]) == 0


def test_the_exit_status_is_the_sweeps(runs, monkeypatch, capsys):
    for status in (1, 130):
        answering(monkeypatch, Result(status, "no trial has a score"))
        assert main(SWEEP) == status
    assert capsys.readouterr().out == "no trial has a score\n" * 2
    answering(monkeypatch, Result(0, "quiet"))
    assert main([*SWEEP, "-q"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ConfigError([Problem("sweep", "another study is in the folder")]), 2, "sweep: another study is in the folder"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("bad day"), 1, "the sweep failed: RuntimeError: bad day"),
    ],
    ids=["refused", "interrupted", "failed"],
)
def test_what_ends_a_sweep_is_said_in_a_line(error, status, says, runs, monkeypatch, capsys):
    answering(monkeypatch, error)
    assert main(SWEEP) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"sweepvi: {says}")
    assert err.count("\n") == 1


def test_rerun_with_a_search(runs, tmp_path):
    assert main([*SWEEP[1:3], "engine.score_draws=2", "-q", "hydra.run.dir=run"]) == 0
    assert main(["-m", "workers.cpus=1", "rerun=run", "guide.init_scale=0.1,0.2", "-q"]) == 0
    plan = runs[0][0]
    assert plan.configuration(plan.points()[1])["engine"]["steps"] == 30


def test_hydra_finds_the_sweeper_in_a_checkout(tmp_path):
    """From another folder, by the path of the checkout alone; and nothing heavy is imported for it."""
    code = (
        "import sys; from hydra.core.plugins import Plugins; from hydra.plugins.sweeper import Sweeper;"
        "print([p.__name__ for p in Plugins.instance().discover(Sweeper)],"
        "[name for name in ('sweepvi', 'optuna', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "['BasicSweeper', 'SweepviSweeper'] []\n"
    assert done.stderr == ""


def test_cfg_shows_what_a_sweep_would_do(tmp_path):
    for words in (["--cfg", "hydra"], ["--info", "plugins"], ["--cfg", "job", "-p", "sweep"]):
        done = subprocess.run(
            [sys.executable, "-m", "sweepvi", *words, "sweep=quick"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert ("n_trials: 30" if "sweep" in words else "SweepviSweeper") in done.stdout
    assert list(tmp_path.iterdir()) == []
