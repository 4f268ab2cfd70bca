"""A study that several agents share, in a real PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fork_server import started
from postgres_server import postgres

from sweepvi.command import parse
from sweepvi.errors import ConfigError, SweepviError
from sweepvi.preflight import planned
from sweepvi.sweep import shared_log, shared_study
from sweepvi.sweep.records import COMPLETE, StudyRecord
from sweepvi.sweep.rungs import Arrival
from sweepvi.sweep.shared_log import SharedLog
from sweepvi.sweep.shared_study import SharedStudy
from sweepvi.sweep.study import Study, Verdict

NAME = "SWEEPVI_TEST_DATABASE"
PASSWORD = "a-secret-of-4711"


@pytest.fixture(scope="module")
def url():
    with postgres(PASSWORD) as found:
        yield found


@pytest.fixture(autouse=True)
def named(url, monkeypatch):
    """The database is known by a variable; agents take their turns as fast as they can."""
    monkeypatch.setenv(NAME, url)
    monkeypatch.setattr(shared_study, "BETWEEN", 0.0)


def plan(*words, trials=12):
    searched = ["optimizer.lr=tag(log,interval(1e-3,0.3))", "optimizer=adam,clipped_adam"]
    fixed = ["model=eight_schools", f"sweep.n_trials={trials}", "engine.steps=80", f"sweep.storage=env:{NAME}"]
    return planned(parse(["-m", *searched, *fixed, *words]))[0]


def entered(tmp_path, place, name, patience=60.0):
    return SharedLog(tmp_path / place / name, f"env:{NAME}", name, patience)


def value_of(number):
    return -30.0 - (number * 7 % 5)


def all_of_it(study):
    """Ask for as many as there are, and let each end at once."""
    while True:
        with study.turn():
            study.judge()
            trial = study.ask()
        if trial is None:
            break
        study.over(trial.number, Verdict(COMPLETE, values=(value_of(trial.number),)))
    with study.turn():
        study.judge()


def test_agents_agree_on_every_trial_and_there_are_no_more_than_wanted(tmp_path):
    made = plan()
    with entered(tmp_path, "a", "agree") as one, entered(tmp_path, "b", "agree") as two:
        first, second = SharedStudy(made, one), SharedStudy(made, two)
        asked = []
        for study in [first, second] * 7:
            with study.turn():
                study.judge()
                trial = study.ask()
            if trial is not None:
                asked.append(trial.number)
                study.over(trial.number, Verdict(COMPLETE, values=(value_of(trial.number),)))
        for study in (first, second):
            with study.turn():
                study.judge()
        with first.turn():
            assert first.lost()
        assert asked == list(range(12))
        records = [study.record for study in (first, second)]
        assert records[0].trials == records[1].trials
        assert {trial.agent for trial in records[0].trials} == {one.agent, two.agent}
        assert records[0].counts() == {COMPLETE: 12}
        assert len({json.dumps(trial.params) for trial in records[0].trials}) == 12
    copies = [StudyRecord.read(tmp_path / place / "agree").trials for place in "ab"]
    assert copies == [records[0].trials] * 2


def test_prescribed_trials_are_those_of_one_agent_alone(tmp_path):
    made = plan("sweep.sampler=qmc")
    with entered(tmp_path, "a", "prescribed") as one, entered(tmp_path, "b", "prescribed") as two:
        studies = [SharedStudy(made, one), SharedStudy(made, two)]
        for study in studies * 6:
            with study.turn():
                study.ask()
        for study in studies:
            with study.turn():
                params = [trial.params for trial in study.record.trials]
    from sweepvi.sweep.log import EventLog

    with EventLog(tmp_path / "alone") as log:
        alone = Study(plan("sweep.sampler=qmc", "sweep.storage=null"), log)
        assert [alone.ask().params for _ in range(12)] == params


def test_one_agent_has_its_turn_at_a_time(tmp_path):
    with entered(tmp_path, "a", "turns") as one, entered(tmp_path, "b", "turns") as two:
        had = threading.Event()

        def other():
            with two.turn():
                had.set()

        thread = threading.Thread(target=other)
        with one.turn():
            thread.start()
            assert not had.wait(0.5)
        assert had.wait(10)
        thread.join()


def test_a_database_that_is_away_when_an_agent_joins_is_one_line(tmp_path, monkeypatch):
    with entered(tmp_path, "a", "joins") as log:
        monkeypatch.setattr(log, "_look_around", away)
        with pytest.raises(SweepviError, match="does not answer: the cable is out"):
            SharedStudy(plan(), log)


def away(*given):
    raise OSError("the cable is out")


def test_who_is_judged_by_whom_does_not_matter(tmp_path):
    """Curves of all agents count: what is pruned is what one agent alone would have pruned."""
    made = plan("sweep.pruner=median", trials=10)
    with entered(tmp_path, "a", "judged") as one, entered(tmp_path, "b", "judged") as two:
        studies = [SharedStudy(made, one), SharedStudy(made, two)]
        mine = {}
        for number in range(10):
            with studies[number % 2].turn():
                mine[studies[number % 2].ask().number] = studies[number % 2]
        for rung, step in ((0, 20), (1, 40)):
            # The last one comes first: the others are waited for.
            for number in reversed(range(10)):
                if mine[number].record.trials[number].state == "RUNNING":
                    mine[number].arrived(Arrival(number, rung, step, -float(number), 0.1))
            for study in studies * 2:
                with study.turn():
                    study.judge()
        shared = [trial.state for trial in studies[1].record.trials]
        with studies[0].turn():
            assert [trial.state for trial in studies[0].record.trials] == shared
    from sweepvi.sweep.log import EventLog

    with EventLog(tmp_path / "alone") as log:
        alone = Study(plan("sweep.pruner=median", "sweep.storage=null", trials=10), log)
        for _ in range(10):
            alone.ask()
        for rung, step in ((0, 20), (1, 40)):
            for trial in [trial for trial in alone.record.trials if trial.state == "RUNNING"]:
                alone.arrived(Arrival(trial.number, rung, step, -float(trial.number), 0.1))
            alone.judge()
        assert [trial.state for trial in alone.record.trials] == shared
    assert 0 < Counter(shared)["PRUNED"] < 10


def test_trials_of_the_dead_are_run_by_others_under_their_number(tmp_path):
    made = plan(trials=6)
    with entered(tmp_path, "b", "dead", patience=0.3) as two:
        with entered(tmp_path, "a", "dead", patience=0.3) as one:
            gone, there = SharedStudy(made, one), SharedStudy(made, two)
            with gone.turn():
                taken = [gone.ask().number for _ in range(3)]
            with there.turn():
                assert there.ask().number == 3
            time.sleep(0.5)
            with there.turn():
                again = [there.ask().number for _ in range(3)]
            assert again == taken
            # It was not dead, only silent: what it has is not wanted any more.
            gone.over(0, Verdict(COMPLETE, values=(0.0,)))
            with gone.turn():
                assert gone.lost() == taken
                gone.judge()
            assert gone.record.trials[0].state == "RUNNING"
        all_of_it(there)
        assert there.unfinished == [0, 1, 2, 3]
        for number in there.unfinished:
            there.over(number, Verdict(COMPLETE, values=(value_of(number),)))
        with there.turn():
            there.judge()
        assert there.record.counts() == {COMPLETE: 6}


def test_an_agent_that_leaves_is_not_waited_for(tmp_path):
    made = plan(trials=2)
    with entered(tmp_path, "b", "leaves") as two:
        there = SharedStudy(made, two)
        with entered(tmp_path, "a", "leaves") as one:
            gone = SharedStudy(made, one)
            with gone.turn():
                gone.ask()
        with there.turn():
            assert there.ask().number == 0


def test_one_agent_scores_the_best_again(tmp_path):
    made = plan(trials=2)
    with entered(tmp_path, "a", "scores") as one, entered(tmp_path, "b", "scores") as two:
        first, second = SharedStudy(made, one), SharedStudy(made, two)
        all_of_it(first)
        with first.turn():
            assert first.may_score()
        with second.turn():
            assert not second.may_score()
        with first.turn():
            assert first.may_score()


def test_a_study_cannot_become_another(tmp_path):
    with entered(tmp_path, "a", "other") as one:
        SharedStudy(plan(), one)
    with entered(tmp_path, "b", "other") as two, pytest.raises(ConfigError, match=r"engine\.steps"):
        SharedStudy(plan("engine.steps=81"), two)


def test_agents_on_one_disk_have_folders_of_their_own(tmp_path):
    with entered(tmp_path, "a", "disk") as one, entered(tmp_path, "a", "disk") as two:
        assert one.path.parent == tmp_path / "a" / "disk"
        assert two.path.parent == tmp_path / "a" / "disk" / "agents" / "2"


def test_a_database_that_is_away_is_waited_for(tmp_path, monkeypatch):
    with entered(tmp_path, "a", "away") as log:
        study = SharedStudy(plan(), log)

        with monkeypatch.context() as patched:
            patched.setattr(log, "_look_around", away)
            with study.turn() as mine:
                assert not mine
            assert "does not answer: the cable is out" in study.trouble
        with study.turn() as mine:
            assert mine
            assert study.ask().number == 0
        assert study.trouble == ""


def agent(folder, trials, *words):
    command = [
        *("-m", "sweepvi", "-m", "model=eight_schools", "optimizer=clipped_adam,adam", "workers.cpus=1"),
        *("optimizer.lr=tag(log,interval(1e-3,0.3))", f"sweep.n_trials={trials}", f"sweep.storage=env:{NAME}"),
        *("sweep.agent_timeout=5", "sweep.pruner=median", "sweep.final_draws=200", "engine.score_draws=100"),
        *(f"hydra.sweep.dir={folder}", *words),
    ]
    with (folder.parent / f"{folder.parent.name}.out").open("wb") as output:
        return subprocess.Popen([started(), *command], stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def events_of(url, study):
    import psycopg

    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT event FROM sweepvi_event WHERE study = %s ORDER BY place", [study])
        return [json.loads(text) for (text,) in rows.fetchall()]


def killed_in_the_middle(tmp_path, url, trials, *words):
    """Two agents; one is killed when a quarter of the trials are over."""
    import psycopg

    name = f"killed{trials}"
    places = [tmp_path / place / name for place in "ab"]
    for place in places:
        place.parent.mkdir()
    first, second = (agent(place, trials, *words) for place in places)
    try:
        over = 0
        while over < trials // 4:
            time.sleep(0.2)
            assert second.poll() is None, (tmp_path / "b" / "b.out").read_text()
            try:
                over = sum(event["event"] == "ended" for event in events_of(url, name))
            except psycopg.errors.UndefinedTable:
                continue
        os.killpg(first.pid, signal.SIGKILL)
        assert second.wait(timeout=600) == 0, (tmp_path / "b" / "b.out").read_text()
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    # The one that was killed is started again, and has nothing left to do.
    assert agent(places[0], trials, *words).wait(timeout=300) == 0, (tmp_path / "a" / "a.out").read_text()
    found = events_of(url, name)
    ended = [event["number"] for event in found if event["event"] == "ended"]
    assert sorted(ended) == list(range(trials))
    asked = Counter(event["number"] for event in found if event["event"] == "asked")
    assert max(asked.values()) > 1, "nothing was under way when the agent was killed"
    assert places[0].joinpath("best.yaml").read_bytes() == places[1].joinpath("best.yaml").read_bytes()
    with psycopg.connect(url) as connection:
        query = (
            "SELECT t.state, count(*), count(DISTINCT a.value_json) FROM trials t "
            "JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'number' "
            "JOIN studies s ON s.study_id = t.study_id WHERE s.study_name = %s GROUP BY t.state"
        )
        rows = connection.execute(query, [name]).fetchall()
    assert {state for state, _, _ in rows} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert sum(count for _, count, _ in rows) == sum(distinct for _, _, distinct in rows) == trials
    for written in tmp_path.rglob("*"):
        assert not written.is_file() or PASSWORD.encode() not in written.read_bytes(), written


def test_two_agents_one_of_which_is_killed(tmp_path, url):
    killed_in_the_middle(tmp_path, url, 24, "engine.steps=400")


@pytest.mark.long
def test_two_hundred_trials_of_two_agents_one_of_which_is_killed(tmp_path, url):
    killed_in_the_middle(tmp_path, url, 200, "engine.steps=1000")


def test_without_a_driver_it_is_said_what_is_missing(tmp_path, monkeypatch):
    def missing(url):
        raise ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2")

    monkeypatch.setattr(shared_log.database, "connected", missing)
    with (
        pytest.raises(ConfigError, match="needs a package that is not installed: psycopg2"),
        entered(tmp_path, "a", "driver"),
    ):
        pass


def test_a_server_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv(NAME, f"postgresql://me:{PASSWORD}@127.0.0.1:1/none")
    with pytest.raises(ConfigError) as refused, entered(tmp_path, "a", "nowhere"):
        pass
    assert "cannot be used: " in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert Path(tmp_path / "a" / "nowhere").is_dir()


def test_agents_by_a_launcher_are_jobs_of_one_study(tmp_path, url, monkeypatch):
    """Hydra's launcher for SLURM, with the jobs on this machine."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["model=eight_schools", "optimizer=adam,sgd", "engine.steps=40", "engine.score_draws=20", "workers.cpus=1"]
    asked = ["hydra/launcher=submitit_local", "sweep.agents=2", "sweep.finalists=0", f"sweep.storage=env:{NAME}"]
    command = [sys.executable, "-m", "sweepvi", "-m", *words, *asked, "hydra.sweep.dir=launched"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starting 2 agents by hydra/launcher=submitit_local" in done.stderr
    found = Counter(event["event"] for event in events_of(url, "launched"))
    assert (found["joined"], found["ended"]) == (2, 2)
    assert (tmp_path / "launched" / "best.yaml").exists()
    assert PASSWORD not in done.stdout + done.stderr
    for written in tmp_path.rglob("*"):
        assert not written.is_file() or PASSWORD.encode() not in written.read_bytes(), written
