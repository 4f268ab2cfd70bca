"""Costs of draws: which draws have one."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from sweepvi import registry


def model():
    where = pyro.sample("where", dist.ImproperUniform(constraints.real_vector, (), (2,)))
    pyro.sample("seen", dist.Normal(where.sum(), 1.0), obs=torch.tensor(0.5))


def guide():
    loc = pyro.param("loc", torch.tensor([0.3, -0.1]))
    pyro.sample("where", dist.Normal(loc, 0.7).to_event(1))


def gradient(elbo):
    pyro.set_rng_seed(1)
    elbo.loss_and_grads(model, guide)
    found = pyro.param("loc").grad
    pyro.clear_param_store()
    return found


@pytest.mark.parametrize("name", ["rloo", "trace_graph"])
def test_a_draw_that_the_guide_can_differentiate_has_none_whatever_its_prior_is(name):
    """A flat prior cannot be drawn from; the guide's draws can be differentiated all the same, as Pyro does."""
    ours = registry.build("estimator", {"name": name, "num_particles": 2}).build()
    torch.testing.assert_close(gradient(ours), gradient(pyro.infer.Trace_ELBO(num_particles=2)))
