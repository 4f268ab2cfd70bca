"""Sweeps from the command line: what is run, what is said, what is in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

import sweepvi
from sweepvi import cli
from sweepvi.engine.trials import smoothed
from sweepvi.sweep.records import StudyRecord

pytestmark = pytest.mark.usefixtures("ready_python")

GRID = ("model=eight_schools", "optimizer=clipped_adam,adagrad_rmsprop", "engine.steps=60,90", "engine.score_draws=200")
SEARCH = ("model=eight_schools", "optimizer=clipped_adam,adam", "optimizer.lr=tag(log,interval(1e-3,1))")
SHORT = ("engine.steps=81", "engine.score_draws=100", "sweep.finalists=0")


def sweep(folder, *words, status=0):
    assert cli.main(["-m", "-q", *words, f"hydra.sweep.dir={folder}"]) == status
    return StudyRecord.read(folder)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    sweep(folder, *GRID, "sweep.final_seeds=1", "sweep.final_draws=400", "sweep.finalists=2", "sweep.folders=true")
    return folder


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "sampled"
    sweep(folder, *SEARCH, *SHORT, "sweep.n_trials=40", "sweep.sampler=random", "sweep.seed=3", "workers.cpus=2")
    return folder


def optimizer_of(params):
    return {"name": params["optimizer"]} | ({"lr": params["optimizer.lr"]} if "optimizer.lr" in params else {})


def lone(params, **settings):
    return sweepvi.fit("eight_schools", optimizer=optimizer_of(params), restarts=1, **settings)


def test_a_grid_is_every_combination_once_in_hydras_order(grid):
    found = [(trial.params["optimizer"], trial.params["engine.steps"]) for trial in StudyRecord.read(grid).trials]
    assert found == [(name, steps) for name in ("clipped_adam", "adagrad_rmsprop") for steps in (60, 90)]


def test_every_score_is_that_of_the_lone_fit(grid):
    for trial in StudyRecord.read(grid).trials:
        alone = lone(trial.params, steps=trial.params["engine.steps"], score_draws=200)
        assert trial.values == pytest.approx([alone.elbo], rel=1e-6)
        assert trial.value_se == pytest.approx(alone.elbo_se, rel=1e-5)
        assert trial.steps == alone.steps


def test_the_best_is_a_configuration_that_runs_to_the_same_score(grid, tmp_path):
    assert cli.main(["-q", f"rerun={grid / 'best.yaml'}", f"hydra.run.dir={tmp_path / 'again'}"]) == 0
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["elbo"] == pytest.approx(StudyRecord.read(grid).best.values[0], rel=1e-6)


def test_the_best_are_scored_again_on_fresh_draws_and_a_fresh_seed(grid):
    record = StudyRecord.read(grid)
    for trial in record.ranked[:2]:
        [rescored], [reseeded] = trial.finals_as("rescored"), trial.finals_as("reseeded")
        assert rescored.draws == 400
        assert rescored.elbo != trial.values[0]
        assert rescored.elbo == pytest.approx(trial.values[0], abs=6 * (trial.value_se + rescored.elbo_se))
        alone = lone(trial.params, steps=trial.params["engine.steps"], score_draws=4000, seed=reseeded.seed)
        assert reseeded.elbo == pytest.approx(alone.elbo, abs=6 * (alone.elbo_se + reseeded.elbo_se))
    assert [trial.number for trial in record.trials if trial.finals] == sorted(t.number for t in record.ranked[:2])


def test_the_folder_has_everything_and_optuna_reads_it(grid):
    names = {path.name for path in grid.iterdir()} - {".lock"}
    assert names == {"study.jsonl", "study.db", "trials.csv", "best.yaml", "report.html", "sweepvi.log", "trials"}
    table = pd.read_csv(grid / "trials.csv")
    assert list(table.state) == ["COMPLETE"] * 4
    [name] = optuna.get_all_study_names(f"sqlite:///{grid / 'study.db'}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{grid / 'study.db'}")
    assert [trial.value for trial in study.trials] == pytest.approx(list(table.value))


def test_trials_are_run_folders_if_that_is_asked_for(grid):
    assert sorted(path.name for path in (grid / "trials").iterdir()) == ["0", "1", "2", "3"]
    for trial in StudyRecord.read(grid).trials:
        saved = sweepvi.FitResult.load(grid / "trials" / f"{trial.number}")
        alone = lone(trial.params, steps=trial.params["engine.steps"], score_draws=200)
        assert saved.elbo == trial.values[0]
        assert saved.params.keys() == alone.params.keys()
        for name, value in saved.params.items():
            torch.testing.assert_close(value, alone.params[name])
        torch.testing.assert_close(saved.losses, alone.losses)
        torch.testing.assert_close(saved.rates["all"], alone.rates["all"])
        with pytest.raises(sweepvi.SweepviError, match="repeats it"):
            saved.sample(1)


def test_the_same_command_again_runs_nothing_and_says_the_same(grid, capsys):
    before = (grid / "study.jsonl").read_bytes()
    words = [*GRID, "sweep.final_seeds=1", "sweep.final_draws=400", "sweep.finalists=2"]
    assert cli.main(["-m", *words, f"hydra.sweep.dir={grid}"]) == 0
    assert (grid / "study.jsonl").read_bytes() == before
    assert "4 trials: 4 complete" in capsys.readouterr().out


def test_another_study_is_refused_with_what_differs(grid, capsys):
    words = ["-m", *GRID[:2], "engine.steps=60,120", "engine.score_draws=100", f"hydra.sweep.dir={grid}"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "configuration.engine.score_draws = 100: the study in" in said
    assert "space.engine.steps" in said


def test_the_pruned_are_those_that_optuna_would_prune_one_after_another(sampled):
    record = StudyRecord.read(sampled)
    sampler, pruner = RandomSampler(seed=3), HyperbandPruner(min_resource=1, max_resource=27, reduction_factor=3)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, study_name="sweepvi-3")
    # What is to be tried before anything is proposed: the defaults.
    study.enqueue_trial({"optimizer": "clipped_adam", "optimizer.lr": 0.02})
    alone = sweepvi.fit_many(
        "eight_schools",
        settings=[{"optimizer": optimizer_of(trial.params)} for trial in record.trials],
        restarts=1,
        steps=81,
        score_draws=0,
    )
    for trial, fit in zip(record.trials, alone, strict=True):
        asked = study.ask()
        params = {
            "optimizer": asked.suggest_categorical("optimizer", ["clipped_adam", "adam"]),
            "optimizer.lr": asked.suggest_float("optimizer.lr", 1e-3, 1.0, log=True),
        }
        assert params == trial.params
        for resource, step in ((1, 3), (3, 9), (9, 27)):
            asked.report(smoothed(fit.losses[:step]), resource)
            if asked.should_prune():
                study.tell(asked, state=TrialState.PRUNED)
                assert (trial.state, trial.reason, trial.steps) == ("PRUNED", "rung", step)
                break
        else:
            assert trial.state == "COMPLETE"
            study.tell(asked, trial.values[0])
    assert record.counts()["PRUNED"] >= 10


def test_one_worker_finds_what_two_do(sampled, tmp_path):
    words = [*SEARCH, *SHORT, "sweep.n_trials=40", "sweep.sampler=random", "sweep.seed=3"]
    one = sweep(tmp_path / "one", *words, "workers.cpus=1", "workers.lanes=8")
    two = StudyRecord.read(sampled)
    for ours, theirs in zip(one.trials, two.trials, strict=True):
        assert (ours.params, ours.state, ours.steps) == (theirs.params, theirs.state, theirs.steps)
        assert ours.values == (None if theirs.values is None else pytest.approx(theirs.values, rel=1e-6))
        assert [rung.value for rung in ours.rungs] == pytest.approx([rung.value for rung in theirs.rungs], rel=1e-6)


def test_a_study_goes_on_where_it_was_cut_off(sampled, tmp_path):
    """As after a kill in the middle: some trials over, others under way, a line half written."""
    folder = tmp_path / "cut"
    shutil.copytree(sampled, folder)
    lines = (sampled / "study.jsonl").read_bytes().splitlines(keepends=True)
    ended = [place for place, line in enumerate(lines) if b'"ended"' in line]
    (folder / "study.jsonl").write_bytes(b"".join(lines[: ended[15]]) + lines[ended[15]][:20])
    words = [*SEARCH, *SHORT, "sweep.n_trials=40", "sweep.sampler=random", "sweep.seed=3"]
    again, whole = sweep(folder, *words), StudyRecord.read(sampled)
    for ours, theirs in zip(again.trials, whole.trials, strict=True):
        assert (ours.params, ours.state, ours.steps) == (theirs.params, theirs.state, theirs.steps)
        assert ours.values == (None if theirs.values is None else pytest.approx(theirs.values, rel=1e-6))
    text = (folder / "study.jsonl").read_text().splitlines()
    over = [json.loads(line)["number"] for line in text if '"ended"' in line]
    assert sorted(over) == list(range(40))


def test_more_trials_go_on_from_those_that_there_are(sampled, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(sampled, folder)
    before = StudyRecord.read(folder).trials
    words = [*SEARCH, *SHORT, "sweep.n_trials=44", "sweep.sampler=random", "sweep.seed=3"]
    after = sweep(folder, *words).trials
    assert after[:40] == before
    assert len({str(trial.params) for trial in after}) == 44


def test_a_model_that_cannot_be_captured_runs_eagerly_with_the_same_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("branching.py").write_text(
        "import pyro, torch\nimport pyro.distributions as dist\n\n\n"
        "def model():\n"
        "    z = pyro.sample('z', dist.Normal(0.0, 1.0))\n"
        "    scale = 1.0 if z > 0 else 2.0\n"
        "    pyro.sample('y', dist.Normal(z, scale), obs=torch.tensor(1.5))\n"
    )
    words = ["model=custom", "model.path=branching.py:model", "optimizer.lr=0.01,0.1", "engine.steps=40"]
    record = sweep(tmp_path / "eager", *words, "sweep.finalists=0", "engine.score_draws=50")
    from branching import model  # pyright: ignore[reportMissingImports]

    for trial in record.trials:
        optimizer = {"name": "clipped_adam", "lr": trial.params["optimizer.lr"]}
        alone = sweepvi.fit(model, optimizer=optimizer, steps=40, engine="eager", score_draws=50)
        assert trial.values == [alone.elbo]
        assert trial.engine == "eager"
