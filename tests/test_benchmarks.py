"""The benchmarks of lanes run, and their tables say what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from contenders import tables

    return tables


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(*wall):
    return {"wall": list(wall), "cpu": [2 * each for each in wall], "loss": 1.0, "note": ""}


def cells(table, row):
    return [cell.strip() for cell in table.splitlines()[2 + row].strip("|").split("|")]


def test_ratios_are_round_by_round_of_the_compiled_tier(tables):
    found = {"pyro": blocks(2.0, 30.0, 4.0), "numpyro": blocks(1e-3, 1e-3, 1e-3), "traced": blocks(1e-2, 1e-2, 1e-2)}
    entries = {"radon|float32|256": {**found, "compiled": blocks(1e-3, 5e-3, 1e-3)}, "radon|float32|16": found}
    entries = {"radon|float32|1024": {}, **entries}
    table = tables.steady(entries, "wall")
    assert [cells(table, row)[2] for row in range(3)] == ["16", "256", "1,024"]
    assert cells(table, 1)[-4:] == ["4,000 (2,000–6,000)", "500 ✓", "1.00 (0.200–1.00)", "1 ✓"]
    assert cells(table, 0)[-4:] == ["400 (200–3,000)", "", "0.100 (0.100–0.100)", ""]
    assert cells(tables.steady(entries, "cpu"), 0)[3] == "8,000,000"


def test_a_contender_that_failed_is_a_dash_and_a_note(tables):
    failed = {"wall": [], "cpu": [], "loss": float("nan"), "note": "no compiler"}
    entries = {"regression|float64|256": {"pyro": blocks(1.0), "traced": failed}}
    assert cells(tables.steady(entries, "wall"), 0)[3:9] == ["1,000,000", "–", "–", "–", "–", "70"]
    of_cases = {"regression|float64": entries["regression|float64|256"]}
    assert cells(tables.agreement(of_cases), 0)[2:] == ["1.0", "–", "–", "–"]
    assert tables.notes(entries) == ["regression|float64|256, traced: no compiler"]


def test_a_page_gets_its_table_anew(tables, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a <!-- x -->old\\1<!-- end of x --> b", encoding="utf-8")
    tables.put(page, "x", r"new \1")
    tables.put(page, "x", r"new \1")
    assert page.read_text(encoding="utf-8") == "a <!-- x -->\n\nnew \\1\n\n<!-- end of x --> b"
    with pytest.raises(ValueError, match="no markers"):
        tables.put(page, "y", "")


def test_the_page_has_a_place_for_every_table():
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- lanes: {part} -->" in text for part in ("agreement", "steady", "cold"))


@pytest.mark.long
def test_steps_and_jobs_are_measured(tmp_path):
    results = tmp_path / "lanes.json"
    options = ["--contenders", "pyro,traced", "--problem", "eight_schools", "--results", results]
    run("lanes.py", "steady", "cold", *options, "--lanes", "1,2", "--rounds", 1, "--seconds", 0.01, "--quick")
    found = json.loads(results.read_text(encoding="utf-8"))
    assert list(found["steady"]) == ["eight_schools|float32|1", "eight_schools|float32|2"]
    assert found["cold"]["eight_schools|float32"]["traced"]["finished"] == 16
    measured = [*found["steady"].values(), *found["cold"].values()]
    assert all(each["note"] == "" and min(each["wall"]) > 0 for own in measured for each in own.values())
    again = run("lanes.py", "steady", *options, "--lanes", "2", "--missing")
    assert "| eight_schools | float32 | 1 |" in again
    assert json.loads(results.read_text(encoding="utf-8")) == found


@pytest.mark.long
def test_scaling_is_drawn(tmp_path):
    figure = tmp_path / "scaling.png"
    options = ["--sizes", 3, "--rounds", 1, "--seconds", 0.01, "--figure", figure]
    told = run("scaling.py", "--tiers", "traced", "--lanes", "1,4", *options)
    assert "| traced | 3 | 4 |" in told
    assert figure.stat().st_size > 1000


@pytest.mark.long
def test_all_contenders_fit_the_same(tmp_path):
    if not (BENCHMARKS / ".venv").exists():
        pytest.skip("NumPyro's environment is not there")
    results = tmp_path / "lanes.json"
    run("lanes.py", "agreement", "--results", results)
    for key, found in json.loads(results.read_text(encoding="utf-8"))["agreement"].items():
        losses = {name: each["loss"] for name, each in found.items()}
        assert max(losses.values()) - min(losses.values()) < 0.05 * abs(losses["numpyro"]) + 2, (key, losses)
