"""Trials are judged as if they had run one after another, whatever the order in which they come."""

from __future__ import annotations

import random

import pytest

from sweepvi.sweep.rungs import Arrival, Rungs

TRIALS, COUNT = 12, 3


def fates(seed):
    """For each trial, how many rungs it reaches by itself, and the rung at which it would be pruned (or COUNT)."""
    generator = random.Random(seed)
    return [(generator.randint(0, COUNT), generator.choice([0, 1, 2, COUNT, COUNT])) for _ in range(TRIALS)]


def one_after_another(found):
    return [
        (number, rung) for number, (reached, stopped) in enumerate(found) for rung in range(min(reached, stopped + 1))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_each_trial_is_judged_after_those_before_it_and_at_its_rungs_in_order(seed):
    found = fates(seed)
    events = [[("at", number, rung) for rung in range(reached)] + [("over", number, 0)]
              for number, (reached, _) in enumerate(found)]  # fmt: skip
    generator, rungs, judged = random.Random(seed + 1000), Rungs(COUNT), []
    while any(events):
        kind, number, rung = generator.choice([own for own in events if own]).pop(0)
        if kind == "at":
            rungs.arrive(Arrival(number, rung, 10 * rung, 0.0))
        else:
            rungs.leave(number)
        for arrival in rungs.due():
            judged.append((arrival.number, arrival.rung))
            rungs.passed(arrival.number, arrival.rung, pruned=found[arrival.number][1] == arrival.rung)
    assert sorted(judged) == one_after_another(found)
    for rung in range(COUNT):
        numbers = [number for number, at in judged if at == rung]
        assert numbers == sorted(numbers)
    for number in range(TRIALS):
        at = [rung for other, rung in judged if other == number]
        assert at == sorted(at)
        assert rungs.judged(number)


def test_a_trial_waits_for_those_before_it_and_holds_up_those_after_it():
    rungs = Rungs(1)
    rungs.arrive(Arrival(1, 0, 10, -1.0))
    assert list(rungs.due()) == []
    rungs.leave(0)
    assert [arrival.number for arrival in rungs.due() if rungs.passed(arrival.number, 0, False) is None] == [1]


def test_a_trial_that_comes_again_after_it_was_judged_is_not_judged_again():
    rungs = Rungs(2)
    rungs.arrive(Arrival(0, 0, 10, -1.0))
    [arrival] = [found for found in rungs.due() if rungs.passed(found.number, found.rung, False) is None]
    rungs.arrive(arrival)
    assert list(rungs.due()) == []


def test_a_trial_that_is_over_is_not_settled_before_it_was_judged_where_it_had_arrived():
    rungs = Rungs(2)
    rungs.arrive(Arrival(1, 0, 10, -1.0))
    rungs.leave(1)
    assert not rungs.judged(1)
    rungs.leave(0)
    for found in rungs.due():
        rungs.passed(found.number, found.rung, pruned=False)
    assert rungs.judged(1)
