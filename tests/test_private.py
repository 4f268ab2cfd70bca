"""The private parts of torch and Pyro that are relied on still do what they are relied on for."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch.distributions import constraints

from sweepvi import private
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX


def test_foreach_copies_and_adds_in_place():
    left, right = [torch.zeros(2), torch.zeros(())], [torch.ones(2), torch.tensor(3.0)]
    private.foreach_copy_(left, right)
    private.foreach_add_(left, right)
    assert left[0].tolist() == [2.0, 2.0]
    assert left[1].item() == 6.0


def test_all_finite_sees_every_kind_and_is_not_fooled_by_large_numbers():
    assert private.all_finite([torch.ones(2), torch.full((3,), 3e38)])
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not private.all_finite([torch.ones(2), torch.tensor([0.0, bad])])


def test_linalg_error_is_what_cholesky_raises():
    try:
        torch.linalg.cholesky(-torch.eye(2))
    except private.LinAlgError:
        return
    raise AssertionError("cholesky of a negative matrix raised something else")


def test_the_store_shows_live_unconstrained_tensors_and_constraints():
    constrained = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    live = private.unconstrained_params()["scale"]
    assert live is constrained.unconstrained()
    assert private.constraint_of("scale") is constraints.positive
    pyro.clear_param_store()


def test_tables_hold_what_a_pyro_module_creates():
    module = PyroModule()
    module.scale = PyroParam(torch.tensor(2.0), constraints.positive)
    assert any("scale_unconstrained" in table for table in private.tensor_tables(module))


def test_an_autoguides_copy_and_original_keep_their_model():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    guides = AutoGuideList(model)
    guides.append(AutoNormal(model))
    for guide in (AutoNormal(model), guides):
        before = guide.model
        twin = private.fresh_autoguide(guide)
        assert guide.model is before
        assert twin.model is before
        guide()
        twin()
    pyro.clear_param_store()


def test_sites_of_plates_and_deterministics_are_told_apart():
    def model():
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("two", torch.tensor(2.0))

    nodes = poutine.trace(model).get_trace().nodes
    sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    assert [name for name, site in sites.items() if private.is_subsample(site)] == ["data"]
    assert [name for name, site in sites.items() if private.is_deterministic(site)] == ["two"]


def test_pyro_keeps_decaying_baselines_where_we_look_for_them():
    def model():
        pyro.sample("x", dist.Bernoulli(0.5))

    def guide():
        p = pyro.param("p", torch.tensor(0.4))
        pyro.sample("x", dist.Bernoulli(p), infer={"baseline": {"use_decaying_avg_baseline": True}})

    pyro.infer.TraceGraph_ELBO().loss_and_grads(model, guide)
    assert f"{BASELINE_STATE_PREFIX}x" in pyro.get_param_store()
    pyro.clear_param_store()


def test_whether_distributions_are_validated_is_what_was_set():
    before = private.validates_distributions()
    try:
        for validates in (True, False):
            torch.distributions.Distribution.set_default_validate_args(validates)
            assert private.validates_distributions() is validates
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_plates_are_whole_inside_and_nothing_stays_changed():
    def rows():
        with pyro.plate("data", 9, subsample_size=2) as found:
            return len(found)

    def fails():
        with private.whole_plates():
            assert rows() == 9
            raise KeyError

    assert rows() == 2
    with pytest.raises(KeyError):
        fails()
    assert rows() == 2
