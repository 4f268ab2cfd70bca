"""The verdict: every rule, alone, at both sides of its threshold."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from sweepvi.verdict import Evidence, Verdict, judged

GOOD = Evidence(
    elbo=-10.0,
    latent=3,
    draws=10_000,
    sd_log_weights=0.5,
    k_hat=0.3,
    ess=8000.0,
    largest=0.001,
    shift=0.1,
    shift_of="a",
    error=0.01,
    error_of="a",
    restarts=4,
    finished=4,
    agreeing=4,
    r_hat=1.02,
)

CASES = {
    "good": ({}, "yes", None),
    "diverged": ({"status": "diverged", "message": "step 3: loss is nan"}, "no", "step 3: loss is nan"),
    "interrupted": ({"status": "interrupted"}, "no", "interrupted"),
    "a weight is not finite": ({"nonfinite": 1}, "no", "1 of 10,000 log weights are not finite"),
    "no draws": ({"draws": 0, "k_hat": None, "sd_log_weights": None, "ess": None}, "caution", "no draws"),
    "all weights alike": ({"k_hat": None, "sd_log_weights": 1e-9}, "yes", None),
    "no k-hat": ({"k_hat": None, "why_no_k_hat": "reason"}, "caution", "no k-hat: reason"),
    "k-hat just usable": ({"k_hat": 0.69}, "yes", None),
    "k-hat too high": ({"k_hat": 0.7}, "caution", "k-hat 0.70 is above 0.70"),
    "k-hat too high, weights nearly alike": ({"k_hat": 0.7, "ess": 9000.0, "largest": 0.0031}, "caution", "k-hat 0.70"),
    "k-hat high, little beyond the draws": ({"k_hat": 0.7, "ess": 9000.0, "largest": 0.0029}, "yes", None),
    "k-hat high, weights not quite alike": ({"k_hat": 0.7, "ess": 8999.0, "largest": 0.0029}, "caution", "k-hat 0.70"),
    "k-hat just below 1": ({"k_hat": 0.99}, "caution", "nothing here can tell"),
    "k-hat 1": ({"k_hat": 1.0}, "no", "k-hat 1.00 is 1 or more"),
    "k-hat 1, weights nearly alike": ({"k_hat": 1.0, "ess": 9000.0}, "caution", "k-hat 1.00 is above 0.70"),
    "k-hat 1, weights not quite alike": ({"k_hat": 1.0, "ess": 8999.0}, "no", "k-hat 1.00 is 1 or more"),
    "too few draws": ({"draws": 2154}, "caution", "k-hat by 2,154 draws only"),
    "just enough draws": ({"draws": 2155}, "yes", None),
    "k-hat too high for the draws": (
        {"draws": 1000, "k_hat": 0.67, "ess": 800.0},
        "caution",
        "k-hat 0.67 is above 0.67",
    ),
    "wide weights": ({"sd_log_weights": 5.1, "k_hat": 0.5}, "caution", "log weights spread by 5.1 nats"),
    "wide weights, few effective draws": ({"sd_log_weights": 5.1, "ess": 399.0}, "caution", "spread by 5.1 nats"),
    "absurd weights": ({"sd_log_weights": 20.5, "k_hat": 0.5}, "no", "log weights spread by 20.5 nats"),
    "spread is NaN": ({"sd_log_weights": math.nan, "k_hat": None}, "no", "nan nats"),
    "a guide that is wide": ({"sd_log_weights": 20.5}, "yes", None),
    "few effective draws": ({"ess": 99.0}, "caution", "10,000 draws are worth 99"),
    "a draw outweighs a few others": ({"largest": 0.51, "draws": 2154}, "caution", "one of 2,154 draws has 51%"),
    "a draw weighs half of all": ({"largest": 0.5}, "yes", None),
    "a draw outweighs all others": ({"largest": 0.51}, "no", "one of 10,000 draws has 51% of the weight of all"),
    "a large shift": ({"shift": 0.6, "k_hat": 0.55}, "caution", "the mean of a by 0.6 standard deviations"),
    "a large shift, few effective draws": ({"shift": 0.6, "ess": 399.0}, "caution", "the mean of a"),
    "a large shift that can be relied on": ({"shift": 0.6}, "yes", None),
    "a large error": ({"error": 0.11}, "caution", "error of the mean of a is 0.11"),
    "the best stands alone": ({"agreeing": 1}, "caution", "the best of 4 restarts stands alone"),
    "two agree": ({"agreeing": 2}, "yes", None),
    "others diverged": ({"finished": 1, "agreeing": 1}, "caution", "one start only"),
    "one start": ({"restarts": 1, "finished": 1, "agreeing": 1}, "caution", "one start only"),
    "one start, one mode": ({"restarts": 1, "finished": 1, "agreeing": 1, "modes": [(-9.5, -1.0)]}, "yes", None),
    "a mode of more mass": ({"modes": [(-10.2, -1.0), (-9.0, -40.0)]}, "no", "1 of 2 modes found are not in the guide"),
    "a mode of less mass": ({"modes": [(-10.2, -1.0), (-12.9, -40.0)]}, "caution", "log evidence of -12.9"),
    "a mode that does not count": ({"modes": [(-10.2, -1.0), (-13.1, -40.0)]}, "yes", None),
    "a mode that is covered": ({"modes": [(-10.2, -1.0), (-9.0, -10.9)]}, "yes", None),
    "no density at a mode": ({"modes": [(-10.2, -1.0), (-9.0, -math.inf)]}, "no", "not in the guide"),
    "a point": ({"points": ("a", "b", "c"), "k_hat": 0.0}, "no", "one point, not a distribution"),
    "some points": ({"points": ("a", "b")}, "caution", "a and 1 more have one value"),
    "minibatches": ({"minibatches": True, "k_hat": 2.0, "sd_log_weights": 90.0}, "caution", "minibatches"),
}


@pytest.mark.parametrize(("changes", "trust", "reason"), CASES.values(), ids=list(CASES))
def test_a_rule(changes, trust, reason):
    verdict = judged(replace(GOOD, **changes))
    assert verdict.trust == trust
    assert (reason is None) == (verdict.reasons == [])
    if reason is not None:
        assert any(reason in each for each in verdict.reasons)


def test_the_gravest_reason_comes_first_and_counts():
    verdict = judged(replace(GOOD, draws=1000, sd_log_weights=30.0, ess=2.0, k_hat=1.5, agreeing=1))
    assert verdict.trust == "no"
    assert [reason.split()[0] for reason in verdict.reasons[:2]] == ["k-hat", "log"]
    assert len(verdict.reasons) == 5
    first, second = str(verdict).splitlines()
    assert first == "trust: no — k-hat 1.50 on 1,000 draws, 1 of 4 restarts agree"
    assert second.startswith("  because k-hat 1.50 is 1 or more")
    assert second.endswith("and 2 more in result.json")


def test_a_good_fit_is_told_in_a_line():
    assert str(judged(GOOD)) == "trust: yes — k-hat 0.30 on 10,000 draws, 4 of 4 restarts agree"
    assert str(judged(replace(GOOD, restarts=1, finished=1, modes=[(-10.0, 0.0)]))).count("restart") == 0


def test_what_says_nothing_is_not_told():
    assert "k-hat" not in str(judged(replace(GOOD, minibatches=True))).splitlines()[0]
    assert "k-hat" not in str(judged(replace(GOOD, points=("a",)))).splitlines()[0]


def test_a_verdict_is_plain_data():
    verdict = judged(replace(GOOD, r_hat=math.inf, modes=[(-10.2, -1.0), (-9.0, -40.0)], draws=1))
    numbers = json.loads(json.dumps(verdict.numbers, allow_nan=False))
    assert numbers == verdict.numbers
    assert (numbers["r_hat"], numbers["modes"], numbers["modes_missed"], numbers["k_limit"]) == (None, 2, 1, None)
    assert Verdict(verdict.trust, verdict.reasons, numbers) == verdict
