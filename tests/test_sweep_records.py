"""What is read from a sweep's event log, and the table made of it."""

from __future__ import annotations

import csv
import math

import optuna
import pytest
import sweep_logs as logs

import sweepvi
from sweepvi.sweep import table
from sweepvi.sweep.records import StudyRecord

LR = {"optimizer.lr": logs.LR}


def two(folder, **changed):
    events = [
        logs.header(),
        logs.asked(0, {"optimizer.lr": 0.01}, LR),
        {"event": "rung", "number": 0, "rung": 0, "step": 74, "resource": 3, "value": -1234.5, "pruned": False},
        logs.asked(1, {"optimizer.lr": 0.1}, LR),
        logs.ended(1, "PRUNED", reason="diverged", message="step 7: the loss is not finite", steps=7),
        logs.ended(0, values=[-1064.2]),
        logs.final(0),
        logs.final(0, "reseeded", seed=17, elbo=-1064.6),
    ]
    return logs.write(folder, events, **changed)


def test_events_are_folded_into_trials(tmp_path):
    record = StudyRecord.read(two(tmp_path))
    done, diverged = record.trials
    assert (done.number, done.state, done.values, done.value, done.value_se) == (
        0,
        "COMPLETE",
        [-1064.2],
        -1064.2,
        0.07,
    )
    assert done.params == {"optimizer.lr": 0.01}
    assert [rung[:3] for rung in done.rungs] == [(74, 3, -1234.5)]
    assert done.curve[0] == (0, 4064.0)
    assert (diverged.state, diverged.reason, diverged.steps, diverged.value) == ("PRUNED", "diverged", 7, None)
    assert [final.elbo for final in record.finals] == [-1064.3, -1064.6]
    assert [final.seed for final in done.finals_as("reseeded")] == [17]
    assert record.counts() == {"COMPLETE": 1, "PRUNED": 1}
    assert record.best is done


def test_a_line_that_a_crash_cut_off_is_ignored(tmp_path):
    whole = StudyRecord.read(two(tmp_path / "whole")).trials
    for torn in ('{"event": "ended", "number": 1, "sta', "{}", '{"event": "ended", "number": 0, "state": "FAIL"}'):
        assert StudyRecord.read(two(tmp_path / "torn", torn=torn)).trials == whole


def test_a_trial_that_was_interrupted_is_asked_again(tmp_path):
    rung = {"event": "rung", "number": 0, "rung": 0, "step": 74, "resource": 3, "value": -2.0}
    ask = logs.asked(0, {"optimizer.lr": 0.01}, LR)
    [trial] = StudyRecord.read(logs.write(tmp_path, [logs.header(), ask, rung, ask, rung])).trials
    assert trial.state == "RUNNING"
    assert len(trial.rungs) == 1


def test_a_final_that_is_there_twice_counts_once(tmp_path):
    events = [logs.header(), logs.asked(0, {}, {}), logs.ended(0, values=[1.0]), logs.final(0), logs.final(0)]
    assert len(StudyRecord.read(logs.write(tmp_path, events)).finals) == 1


def test_trials_are_in_order_however_they_came(tmp_path):
    events = [logs.header(), *(logs.asked(number, {}, {}) for number in (5, 3, 7, 0))]
    assert [trial.number for trial in StudyRecord.of(events).trials] == [0, 3, 5, 7]


def test_a_number_that_json_does_not_have_is_not_a_number(tmp_path):
    rung = {"event": "rung", "number": 0, "rung": 0, "step": 7, "resource": 1, "value": None}
    events = [logs.header(), rung, logs.ended(0, values=[None], curve=[[0, None]])]
    [trial] = StudyRecord.of(events).trials
    assert math.isnan(trial.value)
    assert math.isnan(trial.rungs[0].value)
    assert math.isnan(trial.curve[0][1])
    assert not trial.is_scored


def test_a_session_knows_how_busy_it_was():
    record = StudyRecord.of([*logs.sampled(3), {"event": "session", "started": "2026-01-03T00:00:00", "workers": 1}])
    assert [session["workers"] for session in record.sessions] == [2, 1]
    assert [session.get("lanes_busy") for session in record.sessions] == [0.93, None]


def test_unknown_events_are_skipped(tmp_path):
    events = [logs.header(), {"event": "later", "number": 4}, logs.asked(0, {}, {})]
    assert [trial.number for trial in StudyRecord.read(logs.write(tmp_path, events)).trials] == [0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no sweep"),
        ("", "does not begin with the study"),
        ('{"event": "asked", "number": 0}\n', "does not begin with the study"),
        ('{"event": "study", "version": 2}\n', "is of version 2 of the log; this sweepvi reads version 1"),
        ('{"event": "study", "ver\n{}\n', "is damaged: line 1 is not an event"),
        ("[1, 2]\n", "is damaged: line 1 is not an event"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, content, message):
    if content is not None:
        (tmp_path / "study.jsonl").write_text(content)
    with pytest.raises(sweepvi.SweepviError, match=message):
        StudyRecord.read(tmp_path)


@pytest.mark.parametrize(("direction", "number"), [("maximize", 1), ("minimize", 0)])
def test_the_best_is_finite_complete_and_first(direction, number):
    values = [-5.0, -1.0, -1.0, math.inf, -math.inf, math.nan]
    events = [logs.header(direction=[direction])]
    events += [logs.ended(each, values=[value]) for each, value in enumerate(values)]
    events.append(logs.ended(len(values), "PRUNED", values=[9.0], reason="rung"))
    record = StudyRecord.of(events)
    assert record.best is not None
    assert record.best.number == number


def test_without_a_score_there_is_no_best():
    record = StudyRecord.of([logs.header(), logs.asked(0, {}, {}), logs.ended(0, "FAIL", reason="crash")])
    assert record.best is None
    assert record.pareto == []
    assert list(record.reasons()) == ["crash"]


def test_the_pareto_front_is_that_of_optuna():
    record = StudyRecord.of(logs.sampled(80, objectives=("elbo", "seconds"), direction=("maximize", "minimize")))
    front = {trial.number for trial in record.pareto}
    assert front == {trial.number for trial in record.study().best_trials}
    assert 1 < len(front) < 80
    assert record.best is None


def test_the_study_is_the_same_in_optunas_form(capfd):
    record = StudyRecord.of(logs.sampled(60))
    study = record.study("mine")
    assert study.study_name == "mine"
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    for trial, theirs in zip(record.trials, study.trials, strict=True):
        assert (theirs.number, theirs.state.name, theirs.params) == (trial.number, trial.state, trial.params)
        assert theirs.intermediate_values == {rung.resource: rung.value for rung in trial.rungs}
        assert theirs.values == (trial.values if trial.state == "COMPLETE" else None)
        assert theirs.user_attrs.get("reason", "") == trial.reason
    assert study.trials[0].distributions["estimator.num_particles"] == logs.PARTICLES
    assert study.best_trial.number == record.best.number
    assert capfd.readouterr() == ("", "")


def test_a_trial_takes_its_time_in_optunas_form_too():
    record = StudyRecord.of([logs.header(), logs.asked(0, {}, {}), logs.ended(0, values=[1.0], seconds=2.5)])
    [trial] = record.study().trials
    assert trial.duration.total_seconds() == 2.5
    assert trial.datetime_start.isoformat() == record.created


def test_a_trial_that_runs_and_one_without_a_number_have_a_place_in_the_study():
    events = [logs.header(), logs.asked(0, {}, {}), logs.asked(1, {}, {}), logs.ended(1, values=[math.nan])]
    assert [trial.state.name for trial in StudyRecord.of(events).study().trials] == ["RUNNING", "FAIL"]


def test_the_table_reads_back_to_the_last_bit(tmp_path):
    record = StudyRecord.of(logs.sampled(50))
    with table.write(record, tmp_path).open(newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0])[:8] == ["number", "state", "value", "value_se", "seconds", "steps", "reason", "message"]
    assert set(list(read[0])[8:]) == {"optimizer", "optimizer.lr", "optimizer.eta", "estimator.num_particles"}
    for row, trial in zip(read, record.trials, strict=True):
        assert (float(row["value"]) if row["value"] else None) == trial.value
        assert row["message"] == trial.message
        for name in ("optimizer.lr", "optimizer.eta"):
            assert (float(row[name]) if row[name] else None) == trial.params.get(name)


def test_the_table_has_a_column_for_each_objective():
    record = StudyRecord.of(logs.sampled(3, objectives=("elbo", "k_hat"), direction=("maximize", "minimize")))
    assert table.columns(record)[2:5] == ["value_elbo", "value_k_hat", "value_se"]
    assert {len(row) for row in table.rows(record)} == {len(table.columns(record))}


def test_what_a_trial_does_not_have_is_not_null():
    spaces = {"optimizer.clip": logs.CategoricalDistribution((None, True)), "other": logs.ETA}
    events = [logs.header(), logs.asked(0, {"optimizer.clip": None}, spaces), logs.asked(1, {"other": 0.5}, spaces)]
    events.append(logs.asked(2, {"optimizer.clip": True}, spaces))
    rows = [line.split(",")[-2:] for line in table.text(StudyRecord.of(events)).splitlines()]
    assert rows == [["optimizer.clip", "other"], ["null", ""], ["", "0.5"], ["true", ""]]


def test_the_frame_has_the_columns_of_the_table():
    frame = StudyRecord.of(logs.sampled(30)).frame()
    assert list(frame.number) == list(range(30))
    assert frame.value.max() == StudyRecord.of(logs.sampled(30)).best.value


def test_a_study_without_trials_is_a_table_without_rows():
    record = StudyRecord.of([logs.header()])
    assert table.text(record).splitlines() == ["number,state,value,value_se,seconds,steps,reason,message"]
    assert record.frame().empty
    assert record.study().trials == []
