"""Declared keys: what they accept, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweepvi.errors import ConfigError
from sweepvi.keys import Key, Keyed, check_values, keys_of


@dataclass(frozen=True)
class Example(Keyed):
    """An example."""

    rate: Annotated[float, Key("a rate", gt=0, lt=1)]
    count: Annotated[int, Key("a count", ge=1)] = 1
    pair: Annotated[tuple[float, float], Key("a pair", ge=0)] = (0.0, 1.0)
    kind: Annotated[Literal["a", "b"], Key("a kind")] = "a"
    rank: Annotated[int | None, Key("a rank", ge=1)] = None
    flag: Annotated[bool, Key("a flag")] = False
    label: Annotated[str, Key("a label")] = "x"
    size: Annotated[float, Key("a size", gt=0)] = 1.0
    bound: Annotated[float, Key("a bound", gt=0, infinite=True)] = 1.0
    place: Annotated[str, Key("here or there", pattern="here|there")] = "here"


GOOD = [
    ("rate", 0.5, 0.5),
    ("count", 2.0, 2),
    ("pair", [1, 2], (1.0, 2.0)),
    ("kind", "b", "b"),
    ("rank", None, None),
    ("rank", 3, 3),
    ("flag", True, True),
    ("label", "y", "y"),
    ("bound", float("inf"), float("inf")),
    ("place", "there", "there"),
]
BAD = [
    ("rate", 0, "must be a number > 0 and < 1"),
    ("rate", "0.5", "must be a number"),
    ("rate", True, "must be a number"),
    ("rate", float("nan"), "must be a number"),
    ("rate", None, "must be a number"),
    ("count", 1.5, "must be a whole number >= 1"),
    ("count", float("inf"), "must be a whole number"),
    ("pair", [1], "must be 2 values, each a number >= 0"),
    ("pair", [1, -1], "must be 2 values"),
    ("pair", "12", "must be 2 values"),
    ("pair", 3, "must be 2 values"),
    ("kind", "c", "must be one of a, b"),
    ("kind", 1, "must be one of a, b"),
    ("rank", 0, "must be null or a whole number >= 1"),
    ("flag", 1, "must be true or false"),
    ("flag", "yes", "must be true or false"),
    ("label", 3, "must be text"),
    ("size", float("inf"), "must be a number > 0"),
    ("size", 10**400, "must be a number > 0"),
    ("bound", float("nan"), "must be a number > 0"),
    ("place", "nowhere", "must be here or there"),
    ("label", "", "must be text"),
    ("lable", 3, "no such key; did you mean label"),
]


@pytest.mark.parametrize(("name", "value", "expected"), GOOD)
def test_accepts(name, value, expected):
    converted, problems = check_values(Example, {"rate": 0.5, name: value}, "group")
    assert problems == []
    assert converted[name] == expected
    assert type(converted[name]) is type(expected)


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_refuses_and_says_what_is_valid(name, value, message):
    _, problems = check_values(Example, {"rate": 0.5, name: value}, "group")
    assert len(problems) == 1
    assert problems[0].key == f"group.{name}"
    assert message in str(problems[0])


def test_reports_all_problems_at_once():
    _, problems = check_values(Example, {"count": 0, "kind": "z", "nope": 1}, "group")
    assert sorted(problem.key for problem in problems) == ["group.count", "group.kind", "group.nope", "group.rate"]


def test_construction_in_python_checks_too():
    assert Example(0.5, pair=[3, 4]).pair == (3.0, 4.0)
    with pytest.raises(ConfigError, match=r"Example.rate = 2: must be a number > 0 and < 1"):
        Example(2)


def test_specs_carry_defaults_and_meanings():
    specs = {spec.name: spec for spec in keys_of(Example)}
    assert specs["rate"].required
    assert specs["count"].default == 1
    assert specs["pair"].key.meaning == "a pair"


@settings(deadline=None, derandomize=True)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats(), max_size=3)))
def test_any_value_is_converted_or_refused_never_a_crash(value):
    for name in ("rate", "count", "pair", "kind", "rank", "flag", "label"):
        converted, problems = check_values(Example, {"rate": 0.5, name: value}, "group")
        assert (name in converted) != bool(problems)
