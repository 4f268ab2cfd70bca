"""Studies without workers: what samplers propose, what pruners say, what the log makes of it again."""

from __future__ import annotations

import math

import pytest

from sweepvi import preflight
from sweepvi.command import parse
from sweepvi.errors import ConfigError
from sweepvi.sweep.log import EventLog
from sweepvi.sweep.records import StudyRecord
from sweepvi.sweep.rungs import Arrival
from sweepvi.sweep.sampling import at_quantile
from sweepvi.sweep.study import Study, Verdict

SPACE = (
    "model=eight_schools",
    "engine.steps=81",
    "optimizer=clipped_adam,adam,adagrad_rmsprop",
    "optimizer.lr=tag(log,interval(1e-4,1))",
    "guide.init_scale=null,0.3",
)
SAMPLERS = ("tpe", "gp", "cmaes", "nsga2", "random", "qmc")


@pytest.fixture(scope="module")
def planned():
    known = {}

    def plan(*words):
        if words not in known:
            known[words] = preflight.planned(parse(["-m", *words]))[0]
        return known[words]

    return plan


def score(params):
    """Best at a step size of 0.03 under Adam."""
    rate = params.get("optimizer.lr") or params.get("optimizer.eta (adagrad_rmsprop)") or 1.0
    return -abs(math.log(rate / 0.03)) - (params["optimizer"] != "adam")


def go_on(study, until=None):
    """Run trials one after another."""
    while (until is None or study.asked < until) and (trial := study.ask()) is not None:
        study.over(trial.number, Verdict("COMPLETE", values=(score(trial.params),), steps=81))
        study.judge()
    study.log.write()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_searches_a_conditional_space_and_goes_on_without_repeating_itself(planned, tmp_path, sampler):
    plan = planned(*SPACE, "sweep.n_trials=24", f"sweep.sampler={sampler}", "sweep.pruner=none")
    with EventLog(tmp_path) as log:
        go_on(Study(plan, log), until=15)
    with EventLog(tmp_path) as log:
        study = Study(plan, log)
        assert study.asked == 15
        go_on(study)
    trials = StudyRecord.read(tmp_path).trials
    assert [trial.state for trial in trials] == ["COMPLETE"] * 24
    assert len({str(trial.params) for trial in trials}) == 24
    for trial in trials:
        eta = {"optimizer.eta (adagrad_rmsprop)"} if trial.params["optimizer"] == "adagrad_rmsprop" else set()
        rate = set() if eta else {"optimizer.lr"}
        assert set(trial.params) == {"optimizer", "guide.init_scale"} | eta | rate
    # What is known to be good is tried first.
    assert trials[0].params == {"optimizer": "clipped_adam", "optimizer.lr": 0.02, "guide.init_scale": None}


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_what_does_not_look_at_results_proposes_the_same_when_it_goes_on(planned, tmp_path, sampler):
    plan = planned(*SPACE, "sweep.n_trials=20", f"sweep.sampler={sampler}", "sweep.pruner=none")
    for name, stops in (("whole", [None]), ("parts", [3, 4, 11, None])):
        for stop in stops:
            with EventLog(tmp_path / name) as log:
                go_on(Study(plan, log), until=stop)
    whole, parts = (StudyRecord.read(tmp_path / name).trials for name in ("whole", "parts"))
    assert [trial.params for trial in whole] == [trial.params for trial in parts]


def test_tpe_finds_what_is_good(planned, tmp_path):
    plan = planned(*SPACE, "sweep.n_trials=80", "sweep.pruner=none")
    with EventLog(tmp_path) as log:
        go_on(Study(plan, log))
    record = StudyRecord.read(tmp_path)
    assert record.best.params["optimizer"] == "adam"
    late = [trial.params["optimizer"] for trial in record.trials[50:]]
    assert late.count("adam") > len(late) / 2


def test_entries_of_the_user_are_tried_first(planned, tmp_path):
    words = [*SPACE, "sweep.n_trials=5", "sweep.pruner=none", "sweep.enqueue=[{optimizer.lr: 0.5}]"]
    plan = planned(*words)
    with EventLog(tmp_path) as log:
        go_on(Study(plan, log))
    trials = StudyRecord.read(tmp_path).trials
    assert trials[0].params["optimizer.lr"] == 0.02
    assert trials[1].params["optimizer.lr"] == 0.5


def at_rungs(study, value):
    """Let all trials that there are come to their rungs, beside each other; returns who was pruned, and where."""
    pruned = {}
    for rung, step in enumerate((3, 9, 27)):
        for number in range(study.asked):
            if number not in pruned:
                study.arrived(Arrival(number, rung, step, value(number)))
        _, settled = study.judge()
        pruned |= {trial.number: trial.steps for trial in settled}
    return pruned


@pytest.mark.parametrize("pruner", ["median", "hyperband", "successive_halving"])
def test_pruners_stop_what_is_poor_and_keep_the_best(planned, tmp_path, pruner):
    plan = planned(*SPACE, "sweep.n_trials=40", "sweep.sampler=random", f"sweep.pruner={pruner}")
    with EventLog(tmp_path) as log:
        study = Study(plan, log)
        while study.ask() is not None:
            pass
        # Better and worse ones in turn, one far ahead.
        pruned = at_rungs(study, lambda number: 100.0 if number == 17 else -float(number % 7))
        assert 8 <= len(pruned) < 40
        assert 17 not in pruned
        worst = [number for number in pruned if number % 7 >= 4]
        assert len(worst) > len(pruned) / 3
        log.write()
    again = StudyRecord.read(tmp_path)
    assert {trial.number for trial in again.trials if trial.state == "PRUNED"} == set(pruned)


def test_a_pruner_that_has_been_restored_says_the_same(planned, tmp_path):
    """Half of the trials before a crash, half after it."""
    words = [*SPACE, "sweep.n_trials=30", "sweep.sampler=random", "sweep.pruner=successive_halving"]
    plan = planned(*words)

    def value(number):
        return -float((number * 7919) % 31)

    with EventLog(tmp_path / "whole") as log:
        study = Study(plan, log)
        while study.ask() is not None:
            pass
        expected = at_rungs(study, value)
    with EventLog(tmp_path / "parts") as log:
        study = Study(plan, log)
        while study.asked < 15:
            study.ask()
        for number in range(15):
            study.arrived(Arrival(number, 0, 3, value(number)))
        study.judge()
        log.write()
    with EventLog(tmp_path / "parts") as log:
        study = Study(plan, log)
        before = {trial.number: trial.steps for trial in study.record.trials if trial.state == "PRUNED"}
        while study.ask() is not None:
            pass
        found = before | at_rungs(study, value)
    assert found == expected


def test_wilcoxon_gives_up_what_is_worse_seed_by_seed(planned, tmp_path):
    plan = planned(*SPACE, "sweep.n_trials=2", "sweep.seeds=8", "sweep.pruner=wilcoxon")
    with EventLog(tmp_path) as log:
        study = Study(plan, log)
        study.ask()
        assert not any(study.report_seed(0, place, -1.0 - 0.1 * place) for place in range(8))
        study.over(0, Verdict("COMPLETE", values=(-1.35,)))
        study.judge()
        study.ask()
        said = [study.report_seed(1, place, -5.0 - 0.1 * place) for place in range(8)]
    assert any(said)
    assert not said[0]


def test_a_score_that_is_none_never_wins(planned, tmp_path):
    plan = planned(*SPACE, "sweep.n_trials=4", "sweep.sampler=random", "sweep.pruner=none")
    with EventLog(tmp_path) as log:
        study = Study(plan, log)
        for value in (math.nan, math.inf, 1e30, -3.0):
            number = study.ask().number
            study.over(number, Verdict("COMPLETE", values=(value,), steps=81))
            study.judge()
        log.write()
    record = StudyRecord.read(tmp_path)
    assert record.best.number == 3
    assert [trial.reason for trial in record.trials[:3]] == ["diverged"] * 3


def test_several_objectives_have_a_front_and_no_pruning(planned, tmp_path):
    plan = planned(*SPACE, "sweep.n_trials=12", "sweep.objective=[elbo,seconds]", "sweep.pruner=hyperband")
    with EventLog(tmp_path) as log:
        study = Study(plan, log)
        assert not study.judges_at_rungs
        while (trial := study.ask()) is not None:
            if trial.number == 5:
                study.over(5, Verdict("PRUNED", "diverged", "step 3: loss is nan"))
            else:
                study.over(trial.number, Verdict("COMPLETE", values=(score(trial.params), float(trial.number))))
            study.judge()
        log.write()
    front = StudyRecord.read(tmp_path).pareto
    assert 0 in [trial.number for trial in front]
    assert 5 not in [trial.number for trial in front]


def test_another_space_is_refused_with_each_difference(planned, tmp_path):
    with EventLog(tmp_path) as log:
        Study(planned(*SPACE, "sweep.n_trials=4"), log)
    other = [*SPACE[:3], "optimizer.lr=tag(log,interval(1e-3,1))", *SPACE[4:], "sweep.n_trials=4"]
    with EventLog(tmp_path) as log, pytest.raises(ConfigError) as caught:
        Study(planned(*other), log)
    [problem] = caught.value.problems
    assert problem.key == "space.optimizer.lr"
    assert "1e-4" in problem.message


def test_a_damaged_log_is_one_error(planned, tmp_path):
    (tmp_path / "study.jsonl").write_text("{}\n{}\n")
    with EventLog(tmp_path) as log, pytest.raises(Exception, match="is damaged: line 1 is not an event"):
        Study(planned(*SPACE, "sweep.n_trials=4"), log)


def test_quantiles_of_distributions_cover_them():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    shares = [place / 1000 for place in range(1000)]
    found = [at_quantile(IntDistribution(2, 11, step=3), share) for share in shares]
    assert {value: found.count(value) for value in (2, 5, 8, 11)} == dict.fromkeys((2, 5, 8, 11), 250)
    assert set(found) == {2, 5, 8, 11}
    assert {at_quantile(CategoricalDistribution(["a", "b"]), share) for share in shares} == {"a", "b"}
    logs = [at_quantile(FloatDistribution(1e-4, 1.0, log=True), share) for share in shares]
    assert min(logs) == pytest.approx(1e-4)
    assert logs[500] == pytest.approx(1e-2)
    assert {at_quantile(IntDistribution(1, 8, log=True), share) for share in shares} == set(range(1, 9))
    stepped = {round(at_quantile(FloatDistribution(0.1, 0.5, step=0.2), share), 6) for share in shares}
    assert stepped == {0.1, 0.3, 0.5}
