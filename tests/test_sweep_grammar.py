"""What an override searches, and that it is what Hydra says where Hydra says it."""

from __future__ import annotations

import random

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweepvi.errors import ConfigError, Problem
from sweepvi.sweep.grammar import domain_of, domains_of

LISTS = [
    ("a,b", ("a", "b")),
    ("1,2.5,true,null", (1, 2.5, True, None)),
    ("choice(a,b)", ("a", "b")),
    ("choice('a b',b)", ("a b", "b")),
    ("[1,2],[3]", ([1, 2], [3])),
    ("{a:1},{a:'x y'}", ({"a": 1}, {"a": "x y"})),
    ("sort(3,1,2)", (1, 2, 3)),
    ("sort(3,1,2,reverse=true)", (3, 2, 1)),
    ("int(1.0,2.9)", (1, 2)),
    ("float(1,2)", (1.0, 2.0)),
    ("str(1,2)", ("1", "2")),
    ("a,b,a", ("a", "b")),
    ("choice(7)", (7,)),
]


@pytest.mark.parametrize(("text", "values"), LISTS)
def test_lists(text, values):
    domain = domain_of(f"key.x={text}")
    assert (domain.key, domain.text, domain.shuffled) == ("key.x", text, False)
    assert domain.values == values
    assert domain.ends() == list(values)
    assert [type(value) for value in domain.values] == [type(value) for value in values]
    assert isinstance(domain.distribution, CategoricalDistribution)
    assert len(domain.distribution.choices) == len(values)
    for value in values:
        suggested = domain.suggestion(value)
        assert isinstance(suggested, str | int | float | bool | None)
        assert domain.value(suggested) == value
    with pytest.raises(ValueError, match="nope"):
        domain.suggestion("nope")


RANGES = [
    ("range(5)", IntDistribution(0, 4)),
    ("range(1,5)", IntDistribution(1, 4)),
    ("range(1,6,2)", IntDistribution(1, 5, step=2)),
    ("range(1,5,2)", IntDistribution(1, 3, step=2)),
    ("range(5,1,-2)", IntDistribution(3, 5, step=2)),
    ("range(0,1,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
    ("range(0.1,0.4,0.1)", FloatDistribution(0.1, 0.3, step=0.1)),
    ("float(range(1,4))", FloatDistribution(1.0, 3.0, step=1.0)),
    ("tag(log,range(1,100))", IntDistribution(1, 99, log=True)),
]


@pytest.mark.parametrize(("text", "distribution"), RANGES)
def test_a_range_leaves_its_end_out(text, distribution):
    domain = domain_of(f"key.x={text}")
    assert domain.distribution == distribution
    assert min(domain.values) == distribution.low
    assert max(domain.values) == distribution.high
    assert {distribution.low, distribution.high} <= set(domain.ends())
    for value in domain.values:
        assert domain.value(domain.suggestion(value)) == value
    with pytest.raises(ValueError, match="is not in"):
        domain.suggestion(max(domain.values) + (distribution.step or 1))


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-5, 5).filter(bool))
def test_whole_ranges_are_pythons(start, stop, step):
    text = f"key.x=range({start},{stop},{step})"
    expected = tuple(range(start, stop, step))
    if not expected:
        with pytest.raises(ConfigError, match="is empty"):
            domain_of(text)
        return
    domain = domain_of(text)
    assert tuple(domain.values) == expected
    assert domain.distribution == IntDistribution(min(expected), max(expected), step=abs(step))


@given(st.decimals("-3", "3", places=2), st.integers(1, 30), st.decimals("0.01", "0.5", places=2))
def test_fractional_ranges_have_as_many_values_as_they_say(start, count, step):
    """With decimal fractions, which binary numbers only come near to."""
    domain = domain_of(f"key.x=range({start},{start + count * step},{step})")
    assert len(domain.values) == count
    assert domain.values[-1] == float(start + (count - 1) * step)


INTERVALS = [
    ("interval(0.1,1)", FloatDistribution(0.1, 1.0)),
    ("interval(1,10)", FloatDistribution(1.0, 10.0)),
    ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
    ("tag(log, interval(1e-4, 1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
    ("int(interval(1,10))", IntDistribution(1, 10)),
    ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ("int(tag(log,interval(1,64)))", IntDistribution(1, 64, log=True)),
]


@pytest.mark.parametrize(("text", "distribution"), INTERVALS)
def test_intervals_have_both_ends(text, distribution):
    domain = domain_of(f"key.x={text}")
    assert domain.distribution == distribution
    assert domain.values is None
    kind = int if isinstance(distribution, IntDistribution) else float
    for end in (distribution.low, distribution.high):
        assert domain.value(domain.suggestion(end)) == end
        assert end in domain.ends()
        assert type(domain.value(end)) is kind
    assert any(distribution.low < value < distribution.high for value in domain.ends())
    with pytest.raises(ValueError, match="is not in"):
        domain.suggestion(distribution.high + 1)
    with pytest.raises(ValueError, match="is no number"):
        domain.suggestion("x")


def test_a_suggestion_for_whole_numbers_is_whole():
    with pytest.raises(ValueError, match="is no number"):
        domain_of("key.x=int(interval(1,10))").suggestion(2.5)


@pytest.mark.parametrize("text", ["shuffle(1,2,3)", "shuffle(range(1,4))"])
def test_shuffled_values_are_marked_and_in_the_order_written(text):
    state = random.getstate()
    domain = domain_of(f"key.x={text}")
    assert domain.shuffled
    assert tuple(domain.values) == (1, 2, 3)
    assert random.getstate() == state


OPTIONS = ["adagrad", "adam", "adamw", "sgd"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("glob(ada*)", ("adagrad", "adam", "adamw")),
        ("glob(*,exclude=a*)", ("sgd",)),
        ("glob([adam*,s*],exclude=adamw)", ("adam", "sgd")),
        ("*", ("adagrad", "adam", "adamw", "sgd")),
        ("adam?", ("adamw",)),
    ],
)
def test_patterns_of_options(text, values):
    assert domain_of(f"optimizer={text}", OPTIONS).values == values


def test_a_pattern_without_a_match_says_what_there_is():
    with pytest.raises(ConfigError, match="matches no option; valid: adagrad, adam, adamw, sgd"):
        domain_of("optimizer=glob(z*)", OPTIONS)


@pytest.mark.parametrize(
    "text", ["a=1", "a=[1,2]", "a={b:1}", "a='1,2'", "~a", "a", "a=1,", "a=interval(1", "a=", "a=*"]
)
def test_what_searches_nothing(text):
    assert domain_of(text) is None


@pytest.mark.parametrize(
    "text",
    ["1,2,3", "a,b", "choice(x,'y z')", "range(3)", "range(1,9,3)", "range(0,1,0.25)", "[1,2],[3,4]", "sort(3,1)"],
)
def test_values_are_those_of_hydras_own_sweeper(text):
    """Written out by Hydra, each value reads back as ours."""
    parser = OverridesParser.create()
    theirs = [
        parser.parse_override(f"k={value}").value()
        for value in parser.parse_override(f"k={text}").sweep_string_iterator()
    ]
    assert list(domain_of(f"k={text}").values) == theirs


def test_texts_of_a_file():
    texts = {"lr": "tag(log, interval(1e-3, 1))", "eps": 1e-8, "t": "0.1", "u": "tag(log, interval(0, 1))"}
    lr, *problems = domains_of(texts, "optimizer.search", {}, prefix="optimizer.")
    assert (lr.key, lr.distribution) == ("optimizer.lr", FloatDistribution(1e-3, 1.0, log=True))
    assert all(isinstance(problem, Problem) for problem in problems)
    assert [problem.key for problem in problems] == [f"optimizer.search.{key}" for key in ("eps", "t", "u")]
    [options] = domains_of({"optimizer": "a*"}, "sweep.space", {"optimizer": OPTIONS})
    assert options.values == ("adagrad", "adam", "adamw")
