"""What a terminal shows while a sweep runs."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import sweep_logs as logs
from rich.console import Console

from sweepvi.sweep import live
from sweepvi.sweep.records import StudyRecord


class Time:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Time()


def history(view, clock, events, total, seconds=1.0):
    """Let a view hear of a sweep, from its log: a second a trial."""
    record = StudyRecord.of(events[:1])
    view.started(total, record)
    for event in events[1:]:
        record.add(event)
        if event["event"] == "asked":
            view.asked(event["number"])
        if event["event"] == "ended":
            clock.now += seconds
            view.ended(record.trials[event["number"]])
            view.running(20, 64, 2)
    return record


def terminal(width=100, **options):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=25, color_system=None, **options)


def shown(console, tally):
    """What a terminal of this width shows of a tally, without what moves the cursor."""
    plain = Console(file=io.StringIO(), width=console.width, color_system=None)
    plain.print(live.drawing(tally))
    return plain.file.getvalue()


def test_a_table_tells_all(clock):
    console = terminal()
    view = live.Table(console, clock)
    record = history(view, clock, logs.sampled(60), 100)
    view.asked(60)
    text = " ".join(shown(console, view._tally).split())
    counts = record.counts()
    diverged = len(record.reasons()["diverged"])
    assert f"60 of 100: {counts['COMPLETE']} complete, 1 running, {counts['PRUNED'] - diverged} pruned" in text
    assert f"{diverged} diverged" in text
    assert f"best ELBO {record.best.value:.2f} ± 0.07, trial {record.best.number}" in text
    assert f"optimizer={record.best.params['optimizer']}" in text
    assert "20 of 64 lanes busy, in 2 workers" in text
    assert "60 a minute, 40 s left" in text
    view.close()
    assert "60 of 100" in console.file.getvalue()


def test_the_table_is_drawn_four_times_a_second_at_most(clock):
    console = terminal()
    view = live.Table(console, clock)
    view.started(100, StudyRecord.of([logs.header()]))
    clock.now += 1
    view.asked(0)
    before = len(console.file.getvalue())
    for number in range(1, 50):
        view.asked(number)
    assert len(console.file.getvalue()) == before
    clock.now += 0.3
    view.asked(50)
    assert "51 running" in console.file.getvalue()[before:]
    view.close()


@pytest.mark.parametrize("width", [20, 40, 200])
def test_a_table_fits_its_terminal(clock, width):
    console = terminal(width)
    view = live.Table(console, clock)
    record = history(view, clock, logs.sampled(30), 40)
    text = shown(console, view._tally)
    view.close()
    assert all(len(line) <= width for line in text.splitlines())
    assert str(record.best.number) in text
    assert "…" not in text


def test_a_message_is_printed_as_it_is_above_the_table(clock, caplog):
    console = terminal(60)
    view = live.Table(console, clock)
    view.started(5, StudyRecord.of([logs.header()]))
    with caplog.at_level(logging.INFO, "sweepvi"):
        view.message("a worker has died [bold]; its trials are run again, every single one of them")
    view.close()
    assert "a worker has died [bold]; its trials are run again, every single one of them\n" in console.file.getvalue()
    assert "a worker has died" in caplog.text


def test_lines_come_every_few_seconds(clock, capsys):
    view = live.Lines(echo=True, clock=clock)
    record = history(view, clock, logs.sampled(61), 100, seconds=1.0)
    view.message("something")
    view.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sweep of 100 trials"
    assert len(lines) == 1 + 61 // 5 + 2
    assert lines[-2] == "something"
    assert lines[-1].startswith("61/100 trials  ")
    assert f"best ELBO {record.best.value:.2f} ± 0.07, trial {record.best.number} (optimizer=" in lines[-1]
    assert lines[-1].endswith("60 a minute, 39 s left")


def test_without_echo_only_the_log_has_the_lines(clock, capsys, caplog):
    with caplog.at_level(logging.INFO, "sweepvi"):
        view = live.Lines(echo=False, clock=clock)
        history(view, clock, logs.sampled(10), 10)
        view.close()
    assert capsys.readouterr() == ("", "")
    assert caplog.messages[-1].startswith("10/10 trials")


def test_a_sweep_that_goes_on_counts_what_was_there(clock, capsys):
    view = live.Lines(echo=True, clock=clock)
    record = StudyRecord.of(logs.sampled(50))
    view.started(80, record)
    assert capsys.readouterr().err == "sweep of 80 trials, 50 of them already done\n"
    clock.now += 60
    for number in range(50, 60):
        record.add(logs.asked(number, {}, {}))
        record.add(logs.ended(number, values=[-2e9]))
        view.ended(record.trials[number])
    view.close()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("60/80 trials")
    assert f"trial {record.best.number} (" in last
    assert last.endswith("10 a minute, 2 min left")


def test_what_is_to_be_small_is_best_when_small(clock):
    record = StudyRecord.of([logs.header(["seconds"], ["minimize"])])
    tally = live.Tally(3, record, clock)
    for number, value in enumerate([3.0, 1.0, 2.0]):
        record.add(logs.ended(number, values=[value]))
        tally.add(record.trials[number])
    assert tally.winner() == "seconds 1 ± 0.07, trial 1"


def test_before_anything_is_known_nothing_is_made_up(clock):
    tally = live.Tally(7, StudyRecord.of([logs.header()]), clock)
    assert tally.line() == "0/7 trials  none yet"
    assert "best" in shown(terminal(), tally)


def test_all_failed_is_shown_as_that(clock):
    tally = live.Tally(2, StudyRecord.of([logs.header()]), clock)
    record = StudyRecord.of([logs.header(), logs.ended(0, "FAIL"), logs.ended(1, "PRUNED", reason="diverged")])
    for trial in record.trials:
        tally.add(trial)
    assert tally.states() == "1 diverged, 1 failed"
    assert tally.winner() == ""


@pytest.mark.parametrize(
    ("show", "terminal", "term", "kind"),
    [
        (True, True, "xterm-256color", live.Table),
        (True, True, "dumb", live.Lines),
        (True, False, "xterm-256color", live.Lines),
        (False, True, "xterm-256color", live.Lines),
    ],
)
def test_the_view_suits_the_terminal(monkeypatch, show, terminal, term, kind):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", term)
    view = live.view_for(show)
    assert type(view) is kind
    assert view.echo == (show and kind is live.Lines)


def test_a_view_is_silent(capsys):
    view = live.View()
    view.started(3, StudyRecord.of([logs.header()]))
    view.asked(0)
    view.running(1, 2, 3)
    view.message("text")
    view.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (89, "89 s"), (360, "6 min"), (7500, "2 h 5 min")])
def test_durations(seconds, text):
    assert live.duration(seconds) == text
