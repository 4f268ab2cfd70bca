"""The study of the verdict: what counts as good and as off, and its results' file."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from sweepvi.posterior import COLUMNS, Posterior, Row

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
MODULES = ("fits", "quality", "settings", "tables", "figure", "measures", "reference")


@pytest.fixture(autouse=True)
def study(monkeypatch):
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for folder in ("posteriordb", "verdict"):
        monkeypatch.syspath_prepend(str(EXPERIMENTS / folder))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def a_line(**changes):
    from fits import Line

    zero = {"str": "", "int": 0, "float": 0.0}
    line = Line(**{field.name: zero[str(field.type)] for field in fields(Line)})
    return replace(line, **{"low": 1.0, "high": 1.0, "posterior": "nes", **changes})


def row(name, **values):
    return Row(name, *(values.get(column, 0.0) for column in COLUMNS[1:]))


@pytest.mark.parametrize(("k_hat", "bias", "ratio"), [(0.3, 0.05, 1.1), (0.9, 0.3, 0.7)])
def test_a_fit_is_judged_by_the_numbers_that_are_shown(k_hat, bias, ratio):
    from quality import of_table
    from reference import Reference

    rows = [row("a", mean=1.6, sd=1.4, psis_mean=1.1, psis_sd=2.2), row("b[0,1]", mean=0, sd=1, psis_mean=0, psis_sd=1)]
    shown, plain = of_table(
        Posterior(rows, 10_000, k_hat), Reference({"a": 1.0, "b[1,2]": 0.0}, {"a": 2.0, "b[1,2]": 1.0})
    )
    assert (shown.bias, shown.worst) == (pytest.approx(bias), "a")
    assert sorted([shown.low, shown.high]) == pytest.approx(sorted([1.0, ratio]))
    assert plain.bias == pytest.approx(0.3)


def test_what_was_not_fitted_is_off():
    from quality import LOST, of_table
    from reference import Reference

    assert of_table(None, Reference({"a": 0.0}, {"a": 1.0})) == (LOST, LOST)
    assert a_line(bias=LOST.bias, low=LOST.low, high=LOST.high).quality == "off"


@pytest.mark.parametrize(
    ("changes", "quality"),
    [
        ({"bias": 0.099}, "good"),
        ({"bias": 0.1}, "between"),
        ({"low": 0.79}, "between"),
        ({"high": 1.26}, "between"),
        ({"bias": 0.99}, "between"),
        ({"bias": 1.0}, "off"),
    ],
)
def test_good_and_off(changes, quality):
    assert a_line(**changes).quality == quality


def test_the_file_grows_and_reads_back(tmp_path):
    from fits import append, read

    path = tmp_path / "fits.csv"
    lines = [a_line(setting=number, bias=0.1 + 0.2, reasons='a, "b"; c', k_hat=math.inf) for number in range(3)]
    append(path, lines[:1])
    append(path, lines[1:])
    assert read(path) == lines
    assert [line.key for line in lines] == [("nes", 0), ("nes", 1), ("nes", 2)]


def test_every_setting_can_be_run_in_the_program_that_stands_for_its_own():
    from settings import INSTEAD, PROGRAMS, SETTINGS

    from sweepvi.api import recipe_from

    assert len(SETTINGS) == 30
    pairs = [(number, setting.program) for number, setting in enumerate(SETTINGS)]
    pairs += [(n, of[own]) for of in INSTEAD.values() for n, own in pairs if own in of]
    for number, program in pairs:
        assert program in PROGRAMS
        keywords = SETTINGS[number].keywords(program, number)
        components = {
            k: v for k, v in keywords.items() if k in ("geometry", "guide", "estimator", "optimizer", "scheduler")
        }
        engine = {k: v for k, v in keywords.items() if k not in components}
        assert recipe_from("eight_schools", **components, engine={"name": "auto", **engine}).settings.seed == number


def test_the_shares_and_what_is_wrong():
    from trust_tables import targets, wrong

    lines = [a_line(trust="yes")] * 3 + [a_line(trust="no", reasons="why")] + [a_line(trust="yes", bias=2.0)]
    assert "off, of those marked `yes`: 1 of 4, 25.0% (0.6% to 80.6%)" in targets(lines)
    assert "marked `yes`, of the good: 3 of 4, 75.0%" in targets(lines)
    assert len(wrong(lines).splitlines()) == 2 + 2
    assert "why" in wrong(lines)
