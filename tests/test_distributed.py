"""One fit on several processes: equal bits on all, and what one process gets that averages their gradients itself."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from rank_fits import ROWS, TAKEN, Y
from rank_reference import BACKENDS, by_one_process, demand_agreement, on_ranks

from sweepvi.distributed import Shards, seed_rank
from sweepvi.distributed.launch import Launch, first_host, launched
from sweepvi.distributed.shards import shard
from sweepvi.errors import ConfigError


@pytest.fixture(scope="module", params=BACKENDS)
def told(request, tmp_path_factory):
    return on_ranks(request.param, tmp_path_factory.mktemp("ranks"), "more")


def demand_equal(one, optimizer, kind, **how):
    params, losses = by_one_process(optimizer, kind, **how)
    for name, value in params.items():
        torch.testing.assert_close(torch.tensor(one["params"][name]).double(), value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.tensor(one["losses"]).double(), torch.tensor(losses).double(), rtol=1e-6, atol=1e-6
    )


def test_ranks_end_with_equal_bits(told):
    demand_agreement(told, [name for name in told[0] if name != "refused"])


def test_fits_are_those_of_one_process_that_averages_gradients(told):
    names = [name for name in told[0] if name in ROWS]
    assert len(names) > 1
    for name in names:
        demand_equal(told[0][name], *ROWS[name])


def test_gradients_accumulate(told):
    demand_equal(told[0]["accumulate"], "adam", "norm", accumulate=2, steps=len(told[0]["accumulate"]["losses"]))


def test_compressed_gradients_lead_to_about_the_same(told):
    losses = told[0]["compressed"]["losses"]
    exact, sent = (torch.tensor(told[0][name]["losses"][: len(losses)]) for name in ("adam-norm", "compressed"))
    assert sent[0] == exact[0]
    assert not torch.equal(exact, sent)
    torch.testing.assert_close(sent, exact, rtol=0.02, atol=0)


@pytest.mark.parametrize("size", [10, 9])
def test_the_loss_of_a_whole_epoch_is_that_of_all_data(told, size):
    """Nothing is random but the minibatch; with two ranks and half of the data on each, every step sees all of it."""
    losses = torch.tensor(told[0][f"delta{size}"]["losses"])

    def whole(point, weights):
        normal = torch.distributions.Normal(point, 1.0)
        return -float((weights * normal.log_prob(Y[:size])).sum())

    if size == 10:
        # The guide has nothing to fit; the model's own point moves, but not before the first step.
        assert math.isclose(losses[0], whole(0.3, torch.ones(size)), rel_tol=1e-6)
    else:
        # One entry is there twice, once in each epoch, by turns: of ten, each counts for nine.
        twice = [whole(0.3, (torch.ones(size) + torch.eye(size)[place]) * size / 10) for place in range(size)]
        assert min(abs(losses[0] - loss) for loss in twice) < 1e-5
    assert losses[-1] < losses[0]


def test_what_only_one_rank_uses_counts_as_zero_on_the_other(told):
    """By SGD with momentum from 1, with the gradient's average; what no rank uses stays; ``late`` moves."""
    params = told[0]["one_sided"]["params"]
    value, velocity = 1.0, 0.0
    for _ in range(8):
        velocity = 0.5 * velocity + (2.0 + 0.0) / 2 + 0.1 * value
        value -= 0.1 * velocity
    assert math.isclose(params["b"][0], value, rel_tol=1e-9)
    assert params["c"] == [1.0]
    assert 0 < abs(params["late"][0]) < 1


def test_what_is_not_finite_on_one_rank_ends_all(told):
    for each in told:
        assert each["nan"]["status"] == "diverged"
        assert "rank 1: " in each["nan"]["message"]
        assert "rank 0" not in each["nan"]["message"]
        assert each["nan_skipped"]["status"] == "finished"


def test_one_rank_is_asked_to_stop_and_all_do(told):
    for each in told:
        assert (each["stopped"]["status"], each["stopped"]["steps"]) == ("interrupted", 8)


def test_different_parameters_are_refused_before_the_first_step(told):
    for each in told:
        assert "wide is (3,) float64 on rank 1, (2,) float64 on rank 0" in each["refused"]["refused"]


def test_without_the_all_reduce_ranks_differ(tmp_path):
    """That they are equal above is the all-reduce's doing."""
    told = on_ranks("gloo", tmp_path, "not_averaged")
    [first, other] = [each["adam-norm"] for each in told]
    assert first["digest"] != other["digest"]
    assert (first["agree"], other["agree"]) == (False, False)
    with pytest.raises(AssertionError):
        demand_equal(first, "adam", "norm")


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_optimizer_with_every_clipping(backend, tmp_path):
    told = on_ranks(backend, tmp_path, "all")
    demand_agreement(told, ROWS)
    for name, row in ROWS.items():
        demand_equal(told[0][name], *row)


class TestShards:
    @pytest.mark.parametrize(("size", "ranks"), [(10, 2), (10, 3), (7, 4), (3, 5), (1, 1)])
    def test_they_are_those_of_a_distributed_sampler(self, size, ranks):
        """Which entries there are, and how many of each; the order is another generator's."""
        for epoch in (0, 1):
            own, theirs = [], []
            for rank in range(ranks):
                sampler = torch.utils.data.DistributedSampler(range(size), ranks, rank, seed=3)
                sampler.set_epoch(epoch)
                own.append(shard(size, 3, "data", epoch, rank, ranks).tolist())
                theirs.append(list(sampler))
            assert [len(each) for each in own] == [len(each) for each in theirs]
            assert {place for each in own for place in each} == set(range(size))
            dealt = [entry for turn in zip(*own, strict=True) for entry in turn]
            assert sorted(dealt[:size]) == list(range(size))
            assert dealt[size:] == dealt[: len(dealt) - size]

    def test_every_epoch_has_an_order_of_its_own(self):
        orders = {tuple(shard(20, 0, "data", epoch, 0, 2).tolist()) for epoch in range(5)}
        assert len(orders) == 5

    def test_plates_take_every_entry_once_an_epoch(self):
        seen = []
        for rank in range(2):
            shards = Shards(0, rank, 2)
            for number in range(2):
                with shards.at(number), pyro.plate("data", 12, subsample_size=TAKEN) as batch:
                    seen += batch.tolist()
        assert sorted(seen) == list(range(12))

    def test_the_factor_of_a_minibatch_is_right(self):
        """The average over an epoch of what a plate scales up is the sum over all data."""
        values, found = torch.arange(12.0), []
        for rank in range(2):
            shards = Shards(0, rank, 2)
            for number in range(2):
                with (
                    shards.at(number),
                    pyro.poutine.trace() as trace,
                    pyro.plate("data", 12, subsample_size=3) as batch,
                ):
                    pyro.factor("values", values[batch])
                found.append(trace.trace.log_prob_sum())
        assert math.isclose(sum(found) / len(found), float(values.sum()), rel_tol=1e-6)

    def test_particles_have_minibatches_of_their_own(self):
        with Shards(0, 0, 2).at(0):
            first, second = (pyro.plate("data", 100, subsample_size=20).indices.tolist() for _ in range(2))
        assert first != second

    def test_more_than_a_shard_is_refused(self):
        said = "has 5 of the 10 entries of plate data, and cannot take 8 at once"
        with pytest.raises(ConfigError, match=said), Shards(0, 0, 2).at(0):
            pyro.plate("data", 10, subsample_size=8)


class TestLaunch:
    def test_by_whom(self):
        torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "5"}
        assert launched({**torchrun, "TORCHELASTIC_RESTART_COUNT": "2"}) == Launch(3, 4, 1, "a:5", 2)
        assert launched({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1"}) == Launch(1, 2, 1)
        slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "123456"}
        assert launched({**slurm, "SLURM_STEP_NODELIST": "n[07-09]"}) == Launch(2, 3, 0, "n07:23456")
        assert launched({}) is None

    @pytest.mark.parametrize(
        ("hosts", "first"),
        [("one", "one"), ("a,b", "a"), ("n[1-3]", "n1"), ("gpu[007,9],x", "gpu007"), ("r[1-2]c", "r1c")],
    )
    def test_the_first_host(self, hosts, first):
        assert first_host(hosts) == first


def test_ranks_have_draws_of_their_own():
    draws = {}
    for key in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]:
        seed_rank(*key)
        draws[key] = torch.rand(1).item()
    assert len(set(draws.values())) == 4
    seed_rank(0, 1, 0)
    assert torch.rand(1).item() == draws[0, 1, 0]
