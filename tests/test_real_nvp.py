"""``guide=auto_real_nvp``: a full-rank normal at the start, a bijection with the right volume, and lanes."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import sweepvi
from sweepvi.guides.auto_multivariate_normal import AutoMultivariateNormal
from sweepvi.guides.auto_real_nvp import AutoRealNVP, Couplings

QUICK = {"steps": 4, "score_draws": 20, "posterior_draws": 0, "dtype": "float64"}


def model():
    a = pyro.sample("a", dist.Normal(1.0, 2.0))
    pyro.sample("b", dist.Normal(torch.zeros(3), a.exp()).to_event(1))


@pytest.fixture(autouse=True)
def no_parameters_are_left():
    yield
    pyro.clear_param_store()


def density(guide, value):
    """Of the latent vector, under a guide."""
    pyro.set_rng_seed(0)
    guide()
    return guide.get_posterior().log_prob(value)


def test_at_the_start_it_is_the_full_rank_normal():
    value = torch.randn(5, 4)
    flow, normal = AutoRealNVP().build(model), AutoMultivariateNormal().build(model)
    torch.testing.assert_close(density(flow, value), density(normal, value))


def test_a_heavy_tail_is_that_of_students_t():
    value, flow = torch.randn(5, 4), AutoRealNVP(tail=3.0, init_scale=1.0).build(model)
    flow()
    expected = dist.StudentT(3.0, flow.loc, torch.ones(4)).to_event(1).log_prob(value)
    torch.testing.assert_close(density(flow, value), expected)


def moved(size, count=5):
    """Layers that are not the identity."""
    layers = Couplings(size, count, 8).double()
    with torch.no_grad():
        for layer in layers.exit:
            layer.weight.normal_()
            layer.bias.normal_()
    return layers


@pytest.mark.parametrize("size", [1, 2, 5])
def test_inverse_and_volume_are_those_of_the_map(size):
    layers, x = moved(size), torch.randn(3, size, dtype=torch.float64)
    y = layers._call(x)
    assert bool(((y - x).abs() > 1e-6).all())
    torch.testing.assert_close(layers._inverse(y), x)
    jacobians = torch.stack([torch.autograd.functional.jacobian(layers._call, row) for row in x])
    torch.testing.assert_close(layers.log_abs_det_jacobian(x, y), torch.linalg.slogdet(jacobians).logabsdet)


def test_every_coordinate_moves_and_moves_others():
    jacobian = torch.autograd.functional.jacobian(moved(6)._call, torch.randn(6, dtype=torch.float64))
    assert bool((jacobian != 0).all())


def test_layers_are_the_same_under_every_seed_and_weights_are_not():
    layers = []
    for seed in (1, 2, 1):
        pyro.set_rng_seed(seed)
        layers.append(Couplings(5, 6, 8))
    assert torch.equal(layers[0].masks, layers[1].masks)
    assert not torch.equal(layers[0].entry[0].weight, layers[1].entry[0].weight)
    assert torch.equal(layers[0].entry[0].weight, layers[2].entry[0].weight)


def test_fits_run_as_lanes_with_restarts():
    guide = {"name": "auto_real_nvp", "num_transforms": 2, "hidden_dim": 4}
    result = sweepvi.fit(model, guide=guide, engine="lanes", restarts=2, seed=3, **QUICK)
    assert result.engine == "lanes"
    assert len({each["elbo"] for each in result.restarts}) == 2
    assert {"a", "b"} <= set(result.sample(1))
