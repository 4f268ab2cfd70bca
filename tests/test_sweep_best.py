"""The best of a sweep as a file that runs, and how a sweep's end is told."""

from __future__ import annotations

import pytest
import sweep_logs as logs
from omegaconf import OmegaConf

from sweepvi.sweep import best, ending
from sweepvi.sweep.records import StudyRecord

CONFIG = {"model": {"name": "radon"}, "guide": {"name": "auto_normal"}, "optimizer": {"name": "adam", "lr": 0.01}}
OWN = {**CONFIG, "model": {"name": "custom", "path": "mine.py:model", "data": None}}
GIVEN = {**CONFIG, "model": {"name": "python", "object": "mine.model"}}
TWO = {"objectives": ("elbo", "seconds"), "direction": ("maximize", "minimize")}


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def one(**changed):
    spaces = {"optimizer": logs.OPTIMIZERS, "optimizer.lr": logs.LR}
    return StudyRecord.of(
        [
            logs.header(),
            logs.asked(0, {"optimizer": "adam", "optimizer.lr": 0.0123456789}, spaces),
            logs.ended(0, values=[-1064.2], **changed),
            logs.final(0),
            logs.final(0, "reseeded", seed=17, elbo=-1064.5),
            logs.final(0, "reseeded", seed=18, elbo=-1064.6),
        ]
    )


def test_the_best_is_a_configuration_with_its_score_and_command(tmp_path):
    commands = best.write(one(), tmp_path / "sweep", lambda trial: {**CONFIG, "number": trial.number})
    text = (tmp_path / "sweep/best.yaml").read_text()
    assert text.splitlines()[:2] == [
        "# Trial 0 of a sweep: ELBO -1064.20 ± 0.07",
        "# Run it: python -m sweepvi rerun=sweep/best.yaml",
    ]
    assert OmegaConf.to_container(OmegaConf.create(text)) == {**CONFIG, "number": 0}
    assert commands == {0: "python -m sweepvi rerun=sweep/best.yaml"}


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (OWN, "python -m sweepvi rerun=sweep/best.yaml model.path=mine.py:model"),
        (GIVEN, "in Python, with the model that the sweep was given"),
    ],
)
def test_the_command_names_what_a_file_cannot_hold(tmp_path, config, command):
    assert best.write(one(), tmp_path / "sweep", lambda trial: config) == {0: command}
    assert f"# Run it: {command}\n" in (tmp_path / "sweep/best.yaml").read_text()


def test_the_front_is_a_file_a_trial_and_replaces_what_was_there(tmp_path):
    record = StudyRecord.of(logs.sampled(40, **TWO))
    best.write(one(), tmp_path, lambda trial: CONFIG)
    (tmp_path / "pareto").mkdir()
    (tmp_path / "pareto/9999.yaml").write_text("old")
    commands = best.write(record, tmp_path, lambda trial: CONFIG)
    numbers = [trial.number for trial in record.pareto]
    assert list(commands) == numbers
    assert {path.name for path in (tmp_path / "pareto").iterdir()} == {f"{number}.yaml" for number in numbers}
    assert not (tmp_path / "best.yaml").exists()
    assert "ELBO" in (tmp_path / f"pareto/{numbers[0]}.yaml").read_text().splitlines()[0]


def test_without_a_score_there_is_no_file(tmp_path):
    best.write(one(), tmp_path, lambda trial: CONFIG)
    failed = StudyRecord.of([logs.header(), logs.ended(0, "FAIL", reason="crash")])
    assert best.write(failed, tmp_path, lambda trial: CONFIG) == {}
    assert list(tmp_path.glob("*.yaml")) == []


def test_the_end_of_a_sweep(tmp_path):
    told = ending.text(one(), tmp_path / "sweep", {0: "python -m sweepvi rerun=sweep/best.yaml"})
    assert told.splitlines() == [
        "1 trial: 1 complete",
        "best: trial 0, ELBO -1064.20 ± 0.07 when it was chosen",
        "scored again: on 10,000 fresh draws -1064.30 ± 0.02; under 2 other seeds -1064.50 ± 0.02, -1064.60 ± 0.02",
        "  optimizer     adam",
        "  optimizer.lr  0.01235",
        "saved in sweep",
        "run the best: python -m sweepvi rerun=sweep/best.yaml",
        "look at it: optuna-dashboard sqlite:///sweep/study.db",
    ]


def test_settings_are_told_as_they_are_typed(tmp_path):
    events = [logs.header(), logs.asked(0, {"optimizer.lr (adam)": 0.5}, {}), logs.ended(0, values=[1.0])]
    assert "\n  optimizer.lr  0.5\n" in ending.text(StudyRecord.of(events), tmp_path, {})


def test_the_end_of_a_sweep_in_which_all_failed(tmp_path):
    events = [logs.header()]
    events += [logs.ended(each, "PRUNED", reason="diverged", message=f"step {each}: NaN\nmore") for each in range(3)]
    events += [logs.ended(3, "FAIL", reason="crash", message="ValueError: no"), logs.ended(4, "FAIL", reason="time")]
    events.append(logs.ended(5, "PRUNED", reason="rung", message="x" * 999))
    assert ending.text(StudyRecord.of(events), tmp_path, {}).splitlines()[:6] == [
        "6 trials: 4 pruned (3 diverged, 1 stopped at a rung), 2 failed (1 crashed, 1 took too long)",
        "no trial has a score:",
        "  3 diverged; trial 2: step 2: NaN",
        "  1 crashed; trial 3: ValueError: no",
        "  1 took too long; trial 4: no message",
        "  1 stopped at a rung; trial 5: " + "x" * 159 + "…",
    ]


def test_the_end_of_a_sweep_for_several_objectives(tmp_path):
    record = StudyRecord.of(logs.sampled(200, **TWO))
    told = ending.text(record, tmp_path, {record.pareto[0].number: "python …"})
    assert f"{len(record.pareto)} trials that none betters in ELBO and seconds at once:" in told
    assert f"run trial {record.pareto[0].number}: python …" in told


def test_a_sweep_that_was_stopped_says_how_it_goes_on(tmp_path):
    record = StudyRecord.of([logs.header(), logs.asked(0, {}, {})])
    told = ending.text(record, tmp_path, {})
    assert "1 trial: 1 not finished" in told
    assert "the same command again goes on with it" in told


def test_the_end_before_any_trial(tmp_path):
    assert ending.text(StudyRecord.of([logs.header()]), tmp_path, {}).startswith(
        "0 trials: none\nno trial has a score:"
    )
