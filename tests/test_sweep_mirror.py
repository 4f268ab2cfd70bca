"""The copy of a sweep in a database of Optuna's."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
import sweep_logs as logs

import sweepvi
from sweepvi.sweep.mirror import Mirror
from sweepvi.sweep.records import StudyRecord

NAME = "eight schools"


@pytest.fixture
def mirror():
    """Makes mirrors; lets go of their databases afterwards."""
    made = []

    def make(storage, folder, name=NAME):
        made.append(Mirror(storage, folder, name))
        return made[-1]

    yield make
    for each in made:
        each.close()


def read(url):
    """What the database holds, by another way than it was written."""
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.load_study(study_name=NAME, storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return trials


def comparable(trials):
    names = ("state", "values", "params", "distributions", "user_attrs", "system_attrs", "intermediate_values")
    times = ("datetime_start", "datetime_complete")
    return [{name: getattr(trial, name) for name in (*names, *times)} for trial in trials]


def test_what_is_read_back_is_the_study(tmp_path, mirror, capfd):
    events = logs.sampled(50)
    events += [logs.asked(50, {"optimizer.lr": 0.01}, {"optimizer.lr": logs.LR}), logs.asked(51, {}, {})]
    events.append({"event": "rung", "number": 51, "rung": 0, "step": 9, "resource": 1, "value": -math.inf})
    events.append(logs.ended(51, "PRUNED", reason="diverged", system_attrs={"bracket": 2}))
    record = StudyRecord.of(events)
    assert mirror(None, tmp_path).sync(record) == ""
    assert capfd.readouterr() == ("", "")
    there = read(f"sqlite:///{tmp_path}/study.db")
    expected = [trial for trial in record.study().trials if trial.state.is_finished()]
    assert len(there) == 51
    assert [trial.number for trial in there] == list(range(51))
    assert comparable(there) == comparable(expected)
    assert [trial.user_attrs["number"] for trial in there] == [*range(50), 51]


def test_the_rows_are_those_that_optuna_writes(tmp_path, mirror):
    record = StudyRecord.of(logs.sampled(20, objectives=("elbo", "k_hat"), direction=("maximize", "minimize")))
    mirror(None, tmp_path).sync(record)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/other.db")
    study = optuna.create_study(study_name=NAME, storage=storage, directions=record.directions)
    study.add_trials(record.study().trials)
    storage.engine.dispose()
    ours, theirs = (read(f"sqlite:///{tmp_path}/{name}.db") for name in ("study", "other"))
    assert comparable(ours) == comparable(theirs)
    assert [trial.number for trial in ours] == [trial.number for trial in theirs]


@pytest.mark.parametrize("kind", ["", "journal:"])
def test_nothing_is_there_twice_however_often_it_is_copied(tmp_path, mirror, kind):
    storage = f"{kind}{tmp_path}/log" if kind else None
    whole = logs.sampled(40)
    first = mirror(storage, tmp_path)
    for events in (whole[:60], whole[:90]):
        first.sync(StudyRecord.of(events))
        first.sync(StudyRecord.of(events))
    second = mirror(storage, tmp_path)
    assert second.sync(StudyRecord.of(whole)) == ""
    numbers = [trial.user_attrs["number"] for trial in second._study.get_trials()]
    assert sorted(numbers) == list(range(40))
    if kind:
        journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(f"{tmp_path}/log"))
        assert len(optuna.load_study(study_name=NAME, storage=journal).trials) == 40


def test_several_sweeps_share_a_database(tmp_path, mirror):
    url = f"sqlite:///{tmp_path}/all.db"
    for name, count in (("one", 3), ("two", 5)):
        mirror(url, tmp_path, name).sync(StudyRecord.of(logs.sampled(count)))
    storage = optuna.storages.RDBStorage(url)
    assert {each.study_name: each.n_trials for each in optuna.get_all_study_summaries(storage)} == {"one": 3, "two": 5}
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("form", ["env", "file"])
def test_a_url_can_be_kept_elsewhere(tmp_path, mirror, monkeypatch, form):
    url = f"sqlite:///{tmp_path}/secret.db"
    monkeypatch.setenv("SWEEP_DATABASE", url)
    (tmp_path / "url.txt").write_text(url + "\n")
    storage = {"env": "env:SWEEP_DATABASE", "file": f"file:{tmp_path}/url.txt"}[form]
    assert mirror(storage, tmp_path).sync(StudyRecord.of(logs.sampled(2))) == ""
    assert len(read(url)) == 2


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("env:NOWHERE_AT_ALL", "there is no environment variable NOWHERE_AT_ALL"),
        ("file:missing.txt", "missing.txt cannot be read: .*No such file"),
        (
            "sqlite:////nowhere/at/all.db",
            "sqlite:////nowhere/at/all.db cannot be reached: unable to open database file",
        ),
        ("sqlite:///garbage.db", "garbage.db cannot be reached: file is not a database"),
        ("postgresql://nobody@127.0.0.1:1/none", "the database postgresql:.* (be reached|not installed: psycopg)"),
        ("journal:/proc/none/log", "journal:/proc/none/log cannot be reached"),
    ],
)
def test_what_cannot_be_opened_is_one_clear_error(tmp_path, mirror, monkeypatch, storage, message):
    monkeypatch.chdir(tmp_path)
    Path("garbage.db").write_text("no database " * 100)
    with pytest.raises(sweepvi.ConfigError, match=f"^sweep.storage: .*{message}") as caught:
        mirror(storage, tmp_path).check()
    assert len(str(caught.value).splitlines()) == 1


def test_a_secret_is_not_told(tmp_path, mirror, monkeypatch):
    monkeypatch.setenv("SWEEP_DATABASE", "sqlite:////nowhere/hunter2.db")
    with pytest.raises(sweepvi.ConfigError, match="the database env:SWEEP_DATABASE cannot be reached") as caught:
        mirror("env:SWEEP_DATABASE", tmp_path).check()
    assert "hunter2" not in str(caught.value)


def test_a_study_of_other_objectives_is_left_alone(tmp_path, mirror):
    mirror(None, tmp_path).sync(StudyRecord.of(logs.sampled(2)))
    other = StudyRecord.of([logs.header(direction=["minimize"])])
    assert "holds a study 'eight schools' with other objectives" in mirror(None, tmp_path).sync(other)


def test_a_database_that_is_lost_stops_nobody(tmp_path, mirror):
    """What went wrong is said; when the database is back, all trials get there."""
    record, ours = StudyRecord.of(logs.sampled(20)), mirror(None, tmp_path)
    ours.sync(StudyRecord.of(logs.sampled(5)))
    database = tmp_path / "study.db"
    good = database.read_bytes()
    database.write_bytes(b"x" * len(good))
    ours._opened.engine.dispose()
    assert "study.db: file is not a database" in ours.sync(record)
    database.write_bytes(good)
    assert ours.sync(record) == ""
    assert sorted(trial.user_attrs["number"] for trial in read(f"sqlite:///{database}")) == list(range(20))


def test_what_was_half_written_is_not_written_again(tmp_path, mirror, monkeypatch):
    record, ours = StudyRecord.of(logs.sampled(9)), mirror(f"journal:{tmp_path}/log", tmp_path)
    whole = optuna.Study.add_trials

    def half(study, trials):
        whole(study, trials[:4])
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "add_trials", half)
        assert "disk full" in ours.sync(record)
    assert ours.sync(record) == ""
    assert sorted(trial.user_attrs["number"] for trial in ours._study.get_trials()) == list(range(9))
