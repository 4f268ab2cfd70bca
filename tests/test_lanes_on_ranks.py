"""Lanes on several ranks: each is one fit with that lane of the other ranks."""

from __future__ import annotations

import pytest
import torch
from rank_fits import LANES, RESTARTS, ROWS
from rank_reference import LANES_BACKENDS, LossByHand, by_one_process, demand_agreement, on_ranks

from sweepvi.engine.lanes.starts import restart_seeds


@pytest.fixture(scope="module", params=LANES_BACKENDS)
def lanes(request, tmp_path_factory):
    return on_ranks(request.param, tmp_path_factory.mktemp("lanes"), "lanes")


def test_they_end_with_equal_bits(lanes):
    demand_agreement(lanes, [name for name in lanes[0] if name != "refused"])
    engines = {name: each["engine"] for name, each in lanes[0].items() if name != "refused"}
    assert {name for name, engine in engines.items() if engine != "lanes"} == {"accumulate"}


@pytest.mark.parametrize("name", LANES)
def test_each_is_the_fit_of_one_process_that_averages_gradients(lanes, name):
    rows = lanes[0][name]["rows"]
    for seed in restart_seeds(0, RESTARTS):
        params, _ = by_one_process(*ROWS[name], LossByHand(seed, 2))
        unconstrained = torch.cat([params["loc"], params["scale"].log()])
        torch.testing.assert_close(torch.tensor(rows[str(seed)]).double(), unconstrained, rtol=1e-6, atol=1e-6)


def test_losses_are_averages(lanes):
    _, losses = by_one_process(*ROWS[LANES[1]], LossByHand(0, 2), steps=120)
    torch.testing.assert_close(torch.tensor(lanes[0]["many0"]["losses"]).double(), torch.tensor(losses).double())


def test_fits_of_settings_of_their_own(lanes):
    for name, seed, row in (("many0", 0, LANES[1]), ("many1", 5, LANES[0])):
        params, _ = by_one_process(*ROWS[row], LossByHand(seed, 2), steps=120)
        for each, value in params.items():
            told = torch.tensor(lanes[0][name]["params"][each]).double()
            torch.testing.assert_close(told, value, rtol=1e-6, atol=1e-6)


def test_what_is_not_finite_on_one_rank_ends_a_lane_on_all(lanes):
    for each in lanes:
        assert each["nan"]["status"] == "diverged"
        assert "rank 1: " in each["nan"]["message"]
        assert "rank 0" not in each["nan"]["message"]
        assert each["nan_skipped"]["status"] == "finished"


def test_one_rank_is_asked_to_stop_and_all_do(lanes):
    for each in lanes:
        assert (each["stopped"]["status"], each["stopped"]["steps"]) == ("interrupted", 128)


def test_compressed_gradients_lead_to_about_the_same(lanes):
    exact, sent = (torch.tensor(lanes[0][name]["losses"]) for name in (LANES[1], "compressed"))
    assert not torch.equal(exact, sent)
    torch.testing.assert_close(sent[:40], exact[:40], rtol=0.05, atol=0)


def test_parts_of_a_step_are_for_the_eager_engine(lanes):
    [note] = lanes[0]["accumulate"]["notes"]
    assert note == "ran on the eager engine: distributed.accumulate=2 takes the parts of a step one by one"


def test_different_parameters_are_refused(lanes):
    for each in lanes:
        assert "wide is (3,) float64 on rank 1, (2,) float64 on rank 0" in each["refused"]["refused"]


def test_without_the_all_reduce_ranks_differ(tmp_path):
    [first, other] = [each[LANES[0]] for each in on_ranks("gloo", tmp_path, "lanes", "not_averaged")]
    assert first["digest"] != other["digest"]
    assert (first["agree"], other["agree"]) == (False, False)
