"""The page that a sweep leaves: complete, alone, and true to its record."""

from __future__ import annotations

import math
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import sweep_logs as logs

from sweepvi.sweep import report
from sweepvi.sweep.records import StudyRecord
from sweepvi.sweep.report import front, importance, marks, over_steps, over_trials, page, scale, tables

TWO = {"objectives": ("elbo", "seconds"), "direction": ("maximize", "minimize")}


class Page(HTMLParser):
    """Headings, tables and what is loaded; fails at elements that are not closed."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.headings, self.text, self.loaded, self.cells = [], [], [], 0
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self._open.append(tag)
        self.cells += tag == "td"
        self.loaded += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)


def page_of(record):
    return Page(page.html(record, "a <sweep>"))


def ended_alike(count, state="COMPLETE", **changed):
    """A sweep of one setting, whose trials all ended in one way."""
    events = [logs.header()]
    for number in range(count):
        events.append(logs.asked(number, {"optimizer.lr": 0.01 * (number + 1)}, {"optimizer.lr": logs.LR}))
        values = [-1064.0 - number] if state == "COMPLETE" else None
        events.append(logs.ended(number, state, values, **changed))
    return StudyRecord.of(events)


@pytest.fixture(scope="module")
def sweep():
    events = [*logs.sampled(200), logs.final(18), logs.final(18, "reseeded", seed=5, elbo=-1064.6)]
    return StudyRecord.of(events)


def test_a_page_has_it_all_and_loads_nothing(sweep, tmp_path):
    path = report.write(sweep, tmp_path)
    assert path == tmp_path / "report.html"
    shown = Page(path.read_text(encoding="utf-8"))
    assert shown.headings == [
        "The best trials",
        "What was searched",
        "Trials without a score",
        "Scores by trial",
        "What matters",
        "Scores by setting",
        "All settings at once",
        "Losses of the best",
        "At the rungs",
        "Time",
    ]
    assert shown.loaded == []
    text = " ".join(shown.text)
    best = sweep.best
    assert f"ELBO {best.value:.2f} ± 0.07" in text
    assert f"{sweep.counts()['COMPLETE']} complete" in text
    assert "93%" in text
    assert path.read_text(encoding="utf-8").count("Plotly.newPlot(") == 6


def test_what_users_wrote_is_text():
    events = [logs.header(identity={"space": {"a<b>": "x,</script>"}})]
    for number, value in enumerate(("</script><script>alert(1)", "<b>&amp;")):
        space = logs.CategoricalDistribution(("</script><script>alert(1)", "<b>&amp;"))
        events += [logs.asked(number, {"a<b>": value}, {"a<b>": space}), logs.ended(number, values=[-1.0 - number])]
    events.append(logs.ended(2, "FAIL", reason="crash", message="<img src=x> & </script>"))
    text = page.html(StudyRecord.of(events), "<i>")
    shown = Page(text)
    assert shown.loaded == []
    assert "<img src=x> & </script>" in " ".join(shown.text)
    assert "<script>alert" not in text


def test_nothing_that_users_wrote_is_markup_in_a_figure():
    record = StudyRecord.of([logs.header(), logs.asked(0, {"a": "<b>&"}, {}), logs.ended(0, values=[-1.0])])
    assert marks.hover(record, record.trials[0], -1.0).endswith("<br>a = &lt;b&gt;&amp;")


def test_scores_before_and_after_choosing_are_shown_with_errors(sweep):
    shown = " ".join(page_of(StudyRecord.of([*logs.sampled(200), *_finals(sweep.best.number)])).text)
    assert f"{sweep.best.value:.2f} ± 0.07" in shown
    assert "-1064.30 ± 0.02" in shown
    assert "-1064.61 ± 0.02, -1064.62 ± 0.02" in shown
    assert "on 10,000 fresh draws -1064.30 ± 0.02; under 2 other seeds -1064.61" in shown


def _finals(number):
    seeds = [logs.final(number, "reseeded", seed=seed, elbo=-1064.6 - seed / 100) for seed in (1, 2)]
    return [logs.final(number), *seeds]


@pytest.mark.parametrize(
    ("state", "changed", "says"),
    [
        ("FAIL", {"reason": "crash", "message": "ValueError: no such thing"}, "ValueError: no such thing"),
        ("PRUNED", {"reason": "diverged", "message": "step 3: not finite"}, "step 3: not finite"),
        ("PRUNED", {"reason": "rung"}, "stopped at a rung"),
        ("FAIL", {"reason": "time"}, "took too long"),
    ],
)
def test_a_sweep_in_which_all_failed_says_why(state, changed, says):
    shown = page_of(ended_alike(12, state, **changed))
    text = " ".join(shown.text)
    assert "No trial has a score." in text
    assert says in text
    assert "Trials without a score" in shown.headings
    assert "Scores by trial" not in shown.headings


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_page_of_few_trials(count):
    shown = page_of(ended_alike(count))
    assert ("Scores by trial" in shown.headings) == (count > 0)
    if count > 1:
        assert "Importances need 10 trials" in " ".join(shown.text)


def test_a_sweep_without_settings():
    events = [logs.header(), *(logs.asked(each, {}, {}) for each in range(20))]
    events += [logs.ended(each, values=[-each / 10]) for each in range(20)]
    shown = page_of(StudyRecord.of(events))
    assert "No setting was searched." in " ".join(shown.text)
    assert "Scores by trial" in shown.headings
    assert "Losses of the best" in shown.headings


def test_all_scores_alike():
    events = [logs.header()]
    for number in range(20):
        events += [logs.asked(number, {"lr": 0.01}, {"lr": logs.LR}), logs.ended(number, values=[-7.0])]
    assert "Scores by trial" in page_of(StudyRecord.of(events)).headings


def test_several_objectives():
    record = StudyRecord.of(logs.sampled(120, **TWO))
    shown = page_of(record)
    assert shown.headings[:2] == ["The Pareto front", "Objectives"]
    assert f"{len(record.pareto)} trials that none betters in ELBO and seconds at once" in " ".join(shown.text)
    marked = next(trace for trace in front.pareto(record).data if trace.name == "not bettered in all at once")
    assert list(marked.y) == [trial.values[1] for trial in record.pareto]
    assert len({trace.yaxis for trace in over_trials.history(record).data}) == 2
    three = StudyRecord.of(logs.sampled(60, objectives=("a", "b", "c"), direction=("maximize", "minimize", "minimize")))
    assert len({trace.xaxis for trace in front.pareto(three).data}) == 3


def test_a_large_sweep_is_quick_and_small(tmp_path):
    record = StudyRecord.of(logs.sampled(1000))
    since = time.perf_counter()
    path = report.write(record, tmp_path)
    assert time.perf_counter() - since < 20
    assert path.stat().st_size < 8e6


def test_a_score_that_went_astray_does_not_squash_the_axis(sweep):
    figure = over_trials.history(sweep)
    low, high = figure.layout.yaxis.range
    best = sweep.best.value
    assert low > -1100
    assert low < best < high
    assert all(low <= value <= high for trace in figure.data for value in trace.y)
    beyond = next(trace for trace in figure.data if trace.name == "complete, beyond the axis")
    assert len(set(beyond.y)) == 1
    assert any(re.search(r"ELBO -10\d{5}", text) for text in beyond.text)


def test_every_trial_is_in_the_history_once(sweep):
    traces = {trace.name: len(trace.x) for trace in over_trials.history(sweep).data if trace.mode == "markers"}
    reasons = {reason: len(trials) for reason, trials in sweep.reasons().items()}
    assert sum(traces.values()) == 200
    assert traces["best"] == 1
    assert traces["diverged"] == reasons["diverged"]
    assert traces["failed"] == reasons["crash"]
    assert traces["pruned, at its last rung"] == reasons["rung"]


def test_the_best_so_far_never_gets_worse():
    for direction, sign in (("maximize", 1), ("minimize", -1)):
        record = StudyRecord.of(logs.sampled(50, direction=[direction]))
        line = next(trace for trace in over_trials.history(record).data if trace.name == "best so far")
        assert np.all(np.diff(sign * np.array(line.y)) >= 0)
        assert line.y[-1] == record.best.value


def test_slices_are_over_the_axes_of_the_space(sweep):
    axes = scale.axes(sweep)
    assert axes["optimizer"].options == list(logs.OPTIMIZERS.choices)
    assert {name for name, axis in axes.items() if axis.is_log} == set(axes) - {"optimizer"}
    figure = over_trials.slices(sweep, list(axes.values()))
    kinds = {figure.layout[name].title.text: figure.layout[name] for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")}
    assert kinds["optimizer.lr"].type == "log"
    assert list(kinds["optimizer"].ticktext) == list(logs.OPTIMIZERS.choices)
    count = sum("optimizer.lr" in trial.params for trial in sweep.trials)
    place = f"x{list(axes).index('optimizer.lr') + 1}".removesuffix("1")
    assert sum(len(trace.x) for trace in figure.data if trace.xaxis == place) == count


def test_a_setting_that_does_not_count_is_at_a_dash(sweep):
    [lines] = over_trials.parallel(sweep, list(scale.axes(sweep).values())).data
    dimension = next(each for each in lines.dimensions if each.label == "optimizer.lr")
    assert dimension.ticktext[0] == "–"
    missing = sum("optimizer.lr" not in trial.params for trial in sweep.scored)
    assert sum(np.array(dimension["values"]) == dimension.tickvals[0]) == missing
    known = sorted(value for value in dimension["values"] if value != dimension.tickvals[0])
    rates = sorted(trial.params["optimizer.lr"] for trial in sweep.scored if "optimizer.lr" in trial.params)
    np.testing.assert_allclose(known, np.log10(rates))
    assert lines.line.color[-1] == sweep.best.value


def test_importance_finds_the_setting_that_matters(sweep):
    shares = importance.importances(sweep, scale.axes(sweep))
    assert set(list(shares)[:2]) == {"optimizer.lr", "optimizer.eta"}
    assert shares["optimizer.lr"] > 3 * shares["estimator.num_particles"]
    assert math.isclose(sum(shares.values()), 1.0)
    assert list(importance.bars(shares).data[0].x) == sorted(shares.values())


def test_rungs_are_lines_with_gaps_between_trials(sweep):
    traces = {trace.name: trace for trace in over_steps.rungs(sweep).data}
    pruned = [trial for trial in sweep.trials if trial.state == "PRUNED" and trial.rungs]
    assert sum(value is None for value in traces["pruned"].x) == len(pruned)
    assert list(traces["best"].x) == [74, 222, 666, None]
    assert over_steps.rungs(ended_alike(3)) is None


def test_losses_are_those_of_the_best_in_their_order(sweep):
    figure = over_steps.losses(sweep)
    assert [trace.name.split(":")[0] for trace in figure.data] == [f"trial {each.number}" for each in sweep.ranked[:8]]
    assert list(figure.data[0].y) == [loss for _, loss in sweep.best.curve]
    assert figure.layout.yaxis.range[1] < 4000


def test_losses_that_are_no_numbers():
    record = ended_alike(2, curve=[[0, None], [10, float("inf")], [20, None]])
    assert over_steps.losses(record) is not None
    assert page_of(record)


def test_a_key_of_several_options_has_one_column():
    events = [logs.header()]
    for number, option in enumerate(("adam", "sgd")):
        events.append(logs.asked(number, {f"optimizer.lr ({option})": 0.5 + number}, {}))
        events.append(logs.ended(number, values=[-1.0]))
    shown = Page(f"<div>{tables.chosen(StudyRecord.of(events))}</div>")
    assert shown.text.count("optimizer.lr") == 1
    assert {"0.5", "1.5"} <= set(shown.text)


def test_messages_that_differ_in_numbers_are_one_kind():
    events = [logs.header()]
    for each in range(30):
        message = f"step {each}: loss -1.5e+{each} is not finite"
        events.append(logs.ended(each, "PRUNED", reason="diverged", message=message))
    events.append(logs.ended(30, "FAIL", reason="crash", message="other"))
    shown = Page(f"<div>{tables.failures(StudyRecord.of(events))}</div>")
    assert shown.cells == 10
    assert {"30", "1", "step 0: loss -1.5e+0 is not finite"} <= set(shown.text)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "values", [[1.0], [1.0, 1.0], [0.0], [1.0, 2.0], [-1e300, 1.0, 2.0], [math.nan, 3.0, math.inf]]
)
def test_a_window_holds_the_best_and_has_room(values, direction):
    seen = scale.window(values, direction)
    finite = [value for value in values if math.isfinite(value)]
    best = max(finite) if direction == "maximize" else min(finite)
    low, high = seen.range
    assert low < seen.low <= best <= seen.high < high
    assert seen.edge == (seen.low if direction == "maximize" else seen.high)
    assert low < seen.beyond(2) < high
    assert seen.clip(math.nan) == seen.edge


@pytest.mark.parametrize(
    ("values", "low"),
    [
        ([*np.linspace(-1e6, -9e5, 60), *np.linspace(-10, 0, 41)], -62.5),  # most went astray: ten upper quartiles
        ([-4.0, -3.0, -2.0, -1.0, 0.0], -4.0),  # all are near
        ([-1e9, -4.0, -2.0, -1.0, 0.0], -6.0),  # one went astray: three medians
    ],
)
def test_a_window_reaches_down_to_where_trials_can_be_told_apart(values, low):
    seen = scale.window(values, "maximize")
    assert (seen.low, seen.high) == (pytest.approx(low), 0.0)
    mirrored = scale.window([-value for value in values], "minimize")
    assert (mirrored.low, mirrored.high) == (0.0, pytest.approx(-low))


def test_without_a_finite_score_there_is_no_window():
    assert scale.window([math.nan, -math.inf], "maximize") is None
