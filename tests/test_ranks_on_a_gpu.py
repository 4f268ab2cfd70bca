"""Ranks on NVIDIA GPUs: NCCL with one GPU each, gloo with one for both."""

from __future__ import annotations

import pytest
import torch
from rank_fits import FEWER, LANES, RESTARTS, ROWS
from rank_reference import LossByHand, PyrosLoss, by_one_process, demand_agreement, on_ranks

from sweepvi.engine.lanes.starts import restart_seeds

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

HOW = {
    "nccl-1": ("nccl", 1, "cuda"),
    "nccl-2": ("nccl", 2, "cuda"),
    "gloo-2": ("gloo", 2, "cuda:0"),
}


@pytest.fixture(scope="module", params=HOW)
def told(request, tmp_path_factory):
    backend, ranks, device = HOW[request.param]
    if device == "cuda" and ranks > torch.cuda.device_count():
        pytest.skip(f"needs {ranks} GPUs")
    return on_ranks(backend, tmp_path_factory.mktemp("gpu"), "gpu", ranks=ranks, device=device)


def test_they_end_with_equal_bits(told):
    demand_agreement(told, told[0])
    assert {each["status"] for each in told[0].values()} == {"finished"}
    assert {each.get("engine", "lanes") for each in told[0].values()} == {"lanes"}


@pytest.mark.parametrize("name", LANES)
def test_a_lane_is_the_fit_of_one_process_that_averages_gradients(told, name):
    rows = told[0][name]["rows"]
    for seed in restart_seeds(0, RESTARTS):
        params, _ = by_one_process(*ROWS[name], LossByHand(seed, len(told)))
        unconstrained = torch.cat([params["loc"], params["scale"].log()])
        torch.testing.assert_close(torch.tensor(rows[str(seed)]).double(), unconstrained, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", FEWER)
def test_a_fit_is_that_of_one_process_that_averages_gradients(told, name):
    with torch.device("cuda"):
        params, losses = by_one_process(*ROWS[name], PyrosLoss(len(told)))
    for each, value in params.items():
        own = torch.tensor(told[0][f"eager {name}"]["params"][each]).double()
        torch.testing.assert_close(own, value.cpu(), rtol=1e-6, atol=1e-6)
    own = torch.tensor(told[0][f"eager {name}"]["losses"]).double()
    torch.testing.assert_close(own, torch.tensor(losses).double(), rtol=1e-6, atol=1e-6)


def test_compressed_gradients_lead_to_about_the_same(told):
    exact, sent = (torch.tensor(told[0][name]["losses"]) for name in (LANES[1], "compressed"))
    assert not torch.equal(exact, sent)
    torch.testing.assert_close(sent[:40], exact[:40], rtol=0.05, atol=0)


def test_steps_are_a_cuda_graph_where_ranks_do_not_speak_through_the_host(told, request):
    by_gloo = "gloo" in request.node.callspec.id
    found = [note for name in LANES for note in told[0][name]["notes"] if "CUDA graph" in note]
    assert bool(found) == by_gloo
